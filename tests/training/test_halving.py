import logging

import pytest

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
RATES = {"good": 0.05, "dead": 0.0, "slow": 1e-5, "fine": 0.02}


def test_the_better_half_trains_on(tiny_backbone, tmp_path, caplog):
    """Four heads, then two, then one; whatever was reached stays, all are tested, and the log says who was dropped."""
    runs = {name: HeadRun(HeadConfig("mean"), learning_rate=rate) for name, rate in RATES.items()}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=LABELS)
    arguments = ProbeTrainingArguments(
        str(tmp_path), num_train_epochs=6, batch_size=8, halving_epochs=2, selection_metric="loss"
    )
    trainer = ProbeTrainer(sweep, arguments, image_dataset(48), image_dataset(24, seed=1), augmentation=None)
    with caplog.at_level(logging.INFO):
        results = trainer.train()
    assert {head.name: len(head.history) for head in results.heads} == {"good": 6, "fine": 4, "dead": 2, "slow": 2}
    assert "dropped dead, slow" in caplog.text
    assert sweep.active == set(RATES)
    assert all(parameter.requires_grad for head in sweep.heads.values() for parameter in head.parameters())
    assert all(head.test for head in trainer.test(image_dataset(12, seed=2)).heads)


def test_impossible_halving():
    """After no epochs is no time to drop anything."""
    with pytest.raises(ValueError, match="halving_epochs is 0"):
        ProbeTrainingArguments("out", halving_epochs=0)
