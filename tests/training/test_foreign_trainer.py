"""transformers' `Trainer` on a probe: interrupted, resumed, taken back to its best, on two processes."""

import logging

import pytest
import torch
import transformers
from peft import LoraConfig

from attentive_probes import HeadConfig, ProbeForImageClassification
from spawned import on_processes
from tiny import image_dataset

LORA = LoraConfig(r=2)


def new_probe(backbone, lora):
    torch.manual_seed(0)
    head = HeadConfig("mean", feature_norm="layernorm")
    return ProbeForImageClassification.from_backbone(backbone, head, num_labels=3, lora=lora)


def trainer_of(probe, folder, steps, **options):
    def collate(rows):
        batch = probe.image_processor([row["image"].convert("RGB") for row in rows], return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}

    options = {"per_device_train_batch_size": 8, "save_strategy": "steps", "save_steps": 2, **options}
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=steps, learning_rate=0.05, lr_scheduler_type="constant", remove_unused_columns=False,
        report_to="none", use_cpu=True, disable_tqdm=True, seed=0, **options,
    )  # fmt: skip
    data = image_dataset(24)
    return transformers.Trainer(probe, arguments, data_collator=collate, train_dataset=data, eval_dataset=data)


def learned(probe):
    return {name: p.detach().clone() for name, p in probe.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("lora", [pytest.param(None, marks=pytest.mark.slow), LORA])
def test_resumed_is_uninterrupted(lora, tiny_backbone, tmp_path, caplog):
    """A fresh probe goes on from the checkpoint to the same tensors, and no warning says that any is missing."""
    folder = tiny_backbone("vit")
    whole = new_probe(folder, lora)
    trainer_of(whole, tmp_path / "whole", 4).train()
    trainer_of(new_probe(folder, lora), tmp_path / "parts", 2).train()
    resumed = new_probe(folder, lora)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        trainer_of(resumed, tmp_path / "parts", 4).train(resume_from_checkpoint=True)
    logging.getLogger("transformers").propagate = False
    assert "missing keys" not in caplog.text and "unexpected keys" not in caplog.text
    expected = learned(whole)
    assert learned(resumed).keys() == expected.keys()
    for name, tensor in learned(resumed).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_best_model_is_the_best_checkpoint(lora, tiny_backbone, tmp_path):
    """`load_best_model_at_end`: head and adapter of the first checkpoint, if that was best."""
    probe = new_probe(tiny_backbone("vit"), lora)
    options = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "m", "greater_is_better": True}
    trainer = trainer_of(probe, tmp_path, 4, load_best_model_at_end=True, **options)
    scores = iter([1.0, 0.0])
    trainer.compute_metrics = lambda prediction: {"m": next(scores)}
    trainer.train()
    best = ProbeForImageClassification.from_pretrained(tmp_path / "checkpoint-2", lora=None)
    stored = dict(best.named_parameters())
    for name, tensor in learned(probe).items():
        assert torch.equal(tensor, stored[name]), name


def test_a_checkpoint_of_the_head_alone_is_refused(tiny_backbone):
    """An adapter is never left fresh in silence."""
    probe = new_probe(tiny_backbone("vit"), LORA)
    head = {name: tensor for name, tensor in probe.state_dict().items() if name.startswith("head.")}
    with pytest.raises(ValueError, match="lacks .* tensors of the adapter"):
        probe.load_state_dict(head, strict=False)
    new_probe(tiny_backbone("vit"), None).load_state_dict(head, strict=False)


def trained_on_a_share(backbone, lora, folder, batch_size):
    probe = new_probe(backbone, lora)
    trainer_of(probe, folder, 2, per_device_train_batch_size=batch_size).train()
    return learned(probe)


@pytest.mark.parametrize("lora", [pytest.param(None, marks=pytest.mark.slow), LORA])
def test_two_processes_learn_what_one_does(lora, tiny_backbone, tmp_path):
    """DistributedDataParallel over halves of the batches: the same tensors, the same checkpoint."""
    folder = tiny_backbone("vit")
    alone = trained_on_a_share(folder, lora, tmp_path / "one", 8)
    both = on_processes(2, trained_on_a_share, folder, lora, tmp_path / "two", 4)
    for name, tensor in alone.items():
        torch.testing.assert_close(both[0][name], both[1][name], rtol=0, atol=0)
        torch.testing.assert_close(both[0][name], tensor, rtol=1e-3, atol=1e-4)
    loaded = dict(ProbeForImageClassification.from_pretrained(tmp_path / "two" / "checkpoint-2").named_parameters())
    for name, tensor in both[0].items():
        assert torch.equal(loaded[name], tensor), name
