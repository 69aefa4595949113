import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.evaluation.runs.history import read_history
from attentive_probes.training.steps import loop as loop_module
from tiers import mostly_slow
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
RUNS = {
    "ep": HeadRun(HeadConfig("ep", {"num_queries": 4}, dropout=0.2), learning_rate=0.05),
    "alf": HeadRun(HeadConfig("alf", tokens=("cls@all", "mean@all"), token_noise=0.05)),
}


def trainer_of(folder, tiny_backbone, runs=RUNS, stream=False, **options):
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=LABELS)
    arguments = ProbeTrainingArguments(
        str(folder), **{"num_train_epochs": 4, "batch_size": 8, "eval_batch_size": 16, **options}
    )
    train = image_dataset(24)
    train = train.to_iterable_dataset(num_shards=4).shuffle(seed=0, buffer_size=6) if stream else train
    return ProbeTrainer(sweep, arguments, train, image_dataset(12, seed=1), augmentation=Augmentation())


def interrupted(folder, tiny_backbone, monkeypatch, batches, **options):
    """A run that is stopped after so many batches."""
    original = loop_module.TrainingLoop._step
    seen = []

    def step(self, batch):
        if len(seen) == batches:
            raise KeyboardInterrupt
        seen.append(1)
        return original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop_module.TrainingLoop, "_step", step)
        trainer_of(folder, tiny_backbone, **options).train()


EVERY = [
    (6, {}),
    (6, {"optimizer": "lars", "learning_rate": 1e-3}),
    (6, {"halving_epochs": 2}),
    (6, {"optimizer": "sgd", "learning_rate": 1e-3, "gradient_accumulation_steps": 2}),
    (2, {"save_steps": 1}),
    (11, {"save_steps": 1}),
    (10, {"save_steps": 2}),
    (7, {"save_steps": 2, "gradient_accumulation_steps": 2}),
    (11, {"save_steps": 1, "max_steps": 12, "stream": True}),
    (8, {"save_steps": 3, "max_steps": 12, "stream": True, "num_workers": 2}),
]


@pytest.mark.parametrize(("batches", "options"), mostly_slow(EVERY, [0, 2, 7, 8]))
def test_a_resumed_run_ends_bit_for_bit_the_same(tiny_backbone, tmp_path, monkeypatch, batches, options):
    """Stopped on the way and resumed: same history, same weights, dropout and noise included."""
    torch.manual_seed(0)
    whole = trainer_of(tmp_path / "whole", tiny_backbone, **options)
    expected = whole.train()
    torch.manual_seed(0)
    interrupted(tmp_path / "cut", tiny_backbone, monkeypatch, batches, **options)
    torch.manual_seed(99)
    resumed = trainer_of(tmp_path / "cut", tiny_backbone, resume=True, **options)
    results = resumed.train()
    for head, same in zip(results.heads, expected.heads, strict=True):
        assert head.history == same.history
        assert (head.best_epoch, head.validation) == (same.best_epoch, same.validation)
    for name in RUNS:
        states = [trainer.sweep.heads[name].state_dict() for trainer in (whole, resumed)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert [row["epoch"] for row in next(iter(read_history(tmp_path / "cut").values()))][:4] == [1, 2, 3, 4]


def test_only_the_same_run_is_resumed(tiny_backbone, tmp_path, monkeypatch):
    """Other arguments, other heads: each is named before anything is overwritten."""
    interrupted(tmp_path, tiny_backbone, monkeypatch, 3)
    with pytest.raises(ValueError, match=r"has batch_size=8, not 4"):
        trainer_of(tmp_path, tiny_backbone, resume=True, batch_size=4)
    with pytest.raises(ValueError, match="has other heads"):
        trainer_of(tmp_path, tiny_backbone, {"ep": RUNS["ep"]}, resume=True)
    with pytest.raises(ValueError, match="go on with it"):
        trainer_of(tmp_path, tiny_backbone)
    trainer = trainer_of(tmp_path, tiny_backbone, resume=True)
    trainer.train()
    trainer.test(image_dataset(12, seed=2))
    again = trainer_of(tmp_path, tiny_backbone, resume=True)
    assert again.train() == trainer.results and again.is_tested
    for name, head in trainer.sweep.heads.items():
        assert all(torch.equal(t, again.sweep.heads[name].state_dict()[key]) for key, t in head.state_dict().items())
    with pytest.raises(ValueError, match="scored before"):
        again.test(image_dataset(12, seed=2))


def test_trackers_that_are_missing_are_named(tiny_backbone, tmp_path):
    """An unknown tracker is an error before any work."""
    with pytest.raises(ValueError, match="tracker 'abacus' is not installed"):
        trainer_of(tmp_path, tiny_backbone, report_to="abacus")
