"""Our probes and metrics inside `evaluate` and inside transformers' Trainer."""

import evaluate
import pytest
import torch
from transformers import Trainer, TrainingArguments

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.predictions.evaluate_library import ProbeEvaluator, ScoreMetric
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]


@pytest.fixture
def probe(tiny_backbone):
    torch.manual_seed(0)
    return ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=LABELS).eval()


def test_evaluator_agrees_with_our_evaluation(probe, tmp_path):
    """From a probe, a folder and a pipeline: the accuracy that `evaluate_probe` finds; a mapping is asked for."""
    data = image_dataset(15, seed=4)
    expected = evaluate_probe(probe, data)
    probe.save_pretrained(tmp_path)
    arguments = {"data": data, "metric": ScoreMetric("top1"), "label_column": "label"}
    for source in (probe, str(tmp_path)):
        found = ProbeEvaluator().compute(source, **arguments, label_mapping=probe.config.label2id)
        assert found["top1"] == pytest.approx(expected["top1"])
    with pytest.raises(ValueError, match="label_mapping"):
        ProbeEvaluator().compute(probe, **arguments)


def test_results_are_saved_by_evaluate(probe, tmp_path):
    """`evaluate.combine` and `evaluate.save` take our metrics as they are."""
    both = evaluate.combine([ScoreMetric("top1"), ScoreMetric("macro_f1")])
    found = both.compute(predictions=[[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]], references=[0, 1])
    path = evaluate.save(tmp_path / "scores.json", **found)
    assert '"top1": 50.0' in path.read_text()


class Transformed(torch.utils.data.Dataset):
    """What Trainer's default collator takes."""

    def __init__(self, probe, data):
        self.pixels = probe.image_processor([row["image"] for row in data], return_tensors="pt")["pixel_values"]
        self.labels = data["label"][:]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def test_the_trainer_of_transformers(probe, tiny_backbone, tmp_path):
    """Train, metrics, save, resume: the same weights as an uninterrupted run; the backbone stays as it was."""
    before = {name: p.clone() for name, p in probe.named_parameters() if name.startswith("backbone.")}
    start = {key: value.clone() for key, value in probe.head.state_dict().items()}

    def trainer_of(model, folder, epochs):
        arguments = TrainingArguments(
            str(folder), num_train_epochs=epochs, per_device_train_batch_size=8, learning_rate=0.05, seed=1,
            save_strategy="epoch", eval_strategy="epoch", report_to=[], use_cpu=True, disable_tqdm=True,
            lr_scheduler_type="constant", logging_strategy="no",
        )  # fmt: skip
        train, validation = Transformed(model, image_dataset(24)), Transformed(model, image_dataset(12, seed=1))

        def metrics(output):
            logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
            return ScoreMetric("top1").compute(predictions=logits, references=output.label_ids)

        return Trainer(model, arguments, train_dataset=train, eval_dataset=validation, compute_metrics=metrics)

    whole = trainer_of(probe, tmp_path / "whole", 2)
    whole.train()
    assert 0 <= whole.evaluate()["eval_top1"] <= 100
    assert all(torch.equal(p, before[name]) for name, p in probe.named_parameters() if name in before)
    assert not torch.equal(probe.head.classifier.weight, start["classifier.weight"])
    checkpoint = sorted((tmp_path / "whole").glob("checkpoint-*"))[0]
    other = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=LABELS)
    resumed = trainer_of(other, tmp_path / "resumed", 2)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    torch.testing.assert_close(other.head.classifier.weight, probe.head.classifier.weight)
    loaded = ProbeForImageClassification.from_pretrained(sorted((tmp_path / "whole").glob("checkpoint-*"))[-1])
    torch.testing.assert_close(loaded.head.classifier.weight, probe.head.classifier.weight)
