import json
import math

import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.scores.metrics import balanced_accuracy, top1
from attentive_probes.training.steps.optimizers import build_schedule
from attentive_probes.training.steps.score_test import score_test
from attentive_probes.training.steps.step_count import balanced_class_weights, epochs_for, fitting_batch_size
from golden_data import FOLDER
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
GOLDEN = json.loads((FOLDER / "alf_recipe.json").read_text())


def test_batch_sizes():
    """The published rule, for every number of images in the golden file."""
    for case in GOLDEN["batch_rule"]:
        size = fitting_batch_size(case["requested"], case["samples"], case["min_batches"])
        assert size == case["result"], case
    with pytest.raises(ValueError, match="3 images do not fill 5 batches"):
        fitting_batch_size(256, 3)


def test_epochs():
    """At least so many epochs, and at least so many steps."""
    for case in GOLDEN["epoch_rule"]:
        assert epochs_for(case["epochs"], case["steps_per_epoch"], case["min_steps"]) == case["result"], case


def test_class_weights():
    """Every class counts the same; a class without images counts nothing."""
    case = GOLDEN["class_weights"]
    expected = torch.tensor(case["weights"])
    assert torch.allclose(balanced_class_weights(torch.tensor(case["labels"]), len(expected)), expected)


def test_metrics():
    """Plain and balanced accuracy of the golden scores."""
    case = GOLDEN["metrics"]
    scores, labels = torch.tensor(case["logits"]), torch.tensor(case["labels"])
    assert math.isclose(top1(scores, labels), 100 * case["accuracy_top1_top3"][0], abs_tol=1e-3)
    assert math.isclose(balanced_accuracy(scores, labels), 100 * case["balanced_top1_top3"][0], abs_tol=1e-3)


def test_schedules():
    """Half-cosine to a floor, the same floor for heads of different learning rates."""
    case = GOLDEN["cosine"]
    rates = [float(rate) for rate in case["lr_at_step"]]
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.SGD(groups)
    schedule = build_schedule(optimizer, case["steps"], 0.0, case["min_lr"])
    seen = []
    for _ in range(case["steps"]):
        seen.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    for column, values in enumerate(case["lr_at_step"].values()):
        for step, expected in values:
            assert math.isclose(seen[step][column], expected, rel_tol=1e-9), (step, column)


def test_ties_go_to_the_first():
    """Heads listed from high to low learning rate and low to high decay: equals are decided as in ALF's search."""

    def chosen(score):
        heads = []
        for rate, decay in GOLDEN["tuner_all_tied"]["order"]:
            validation = {"balanced_accuracy": score(rate, decay)}
            heads.append(HeadResult(f"{rate}-{decay}", {}, rate, decay, 0, validation=validation))
        best = SweepResults(heads, "balanced_accuracy", {}, {}, {}).best
        return [best.learning_rate, best.weight_decay]

    assert chosen(lambda rate, decay: 0.5) == GOLDEN["tuner_all_tied"]["chosen"][:2]
    scripted = chosen(lambda r, d: 0.9 - 0.05 * abs(math.log10(r) + 2.2) - 0.02 * abs(math.log10(d) + 2.6))
    assert scripted == pytest.approx(GOLDEN["tuner_scripted"]["chosen"][:2])


def test_a_run_by_these_rules(tiny_backbone, tmp_path):
    """Batch size, epochs, class weights and noise of the recipe, in one run; the results say what was used."""
    head = HeadConfig("alf", tokens=("cls@all", "mean@all"), token_norm="l2", token_noise=0.05)
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), {"alf": HeadRun(head)}, labels=LABELS)
    arguments = ProbeTrainingArguments(
        str(tmp_path), num_train_epochs=1, min_steps=12, batch_size=64, fit_batch_size=True, drop_last=False,
        class_weights="balanced", min_learning_rate=1e-6, warmup_ratio=0.0,
    )  # fmt: skip
    results = ProbeTrainer(sweep, arguments, image_dataset(40), image_dataset(12, seed=1), augmentation=None).train()
    assert results.arguments["batch_size"] == 8
    assert len(results.heads[0].history) == 3  # 5 batches an epoch: 15 steps hold at least 12


def test_learning_rates_per_256_images(tiny_backbone, tmp_path):
    """Base rates, of a head and of the run alike, are multiplied by batch size over 256; results say what was used."""
    runs = {"own": HeadRun(HeadConfig("mean"), learning_rate=0.5), "shared": HeadRun(HeadConfig("mean"))}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=LABELS)
    arguments = ProbeTrainingArguments(str(tmp_path), batch_size=16, learning_rate=0.1, scale_learning_rate=True)
    trainer = ProbeTrainer(sweep, arguments, image_dataset(40), image_dataset(12, seed=1))
    assert [head.learning_rate for head in trainer.results.heads] == [0.5 / 16, 0.1 / 16]


def test_weights_change_what_is_learned(tiny_backbone, tmp_path):
    """Two images of one class among many of another: weighted training fits the rare class better."""
    data = image_dataset(90)
    rare = data.select([0, 3, *(i for i in range(90) if i % 3 == 1)])
    losses = {}
    for weights in ("none", "balanced"):
        sweep = ProbeSweep.from_backbone(
            tiny_backbone("vit"), {"mean": HeadRun(HeadConfig("mean", feature_norm="none"))}, labels=LABELS
        )
        arguments = ProbeTrainingArguments(
            str(tmp_path / weights), num_train_epochs=6, batch_size=8, learning_rate=0.02, class_weights=weights
        )
        trainer = ProbeTrainer(sweep, arguments, rare, rare, augmentation=None)
        trainer.train()
        scores = score_test(
            trainer.run, trainer.open_split("two of the rare class", rare.select([0, 1])), "mean", DetailOptions()
        )["mean"]
        losses[weights] = scores.loss
    assert losses["balanced"] < losses["none"]


def test_streams_cannot_be_counted(tiny_backbone, tmp_path):
    """Rules that need the number of images or labels are refused for streams, before any training."""
    for options in ({"fit_batch_size": True}, {"class_weights": "balanced"}):
        sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), {"mean": HeadRun(HeadConfig("mean"))}, labels=LABELS)
        arguments = ProbeTrainingArguments(str(tmp_path), max_steps=2, **options)
        stream = image_dataset(9).to_iterable_dataset()
        with pytest.raises(ValueError, match="stream"):
            ProbeTrainer(sweep, arguments, stream, image_dataset(9))
