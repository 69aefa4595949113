"""A loss that is no finite number is a state of its head, and of no other."""

import pytest
import torch
from test_trainer import RUNS, head_tensors, make_sweep, make_trainer

from attentive_probes import HeadConfig, HeadRun
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.training.steps.loop import TrainingLoop
from tiny import image_dataset


@pytest.fixture
def backbone(tiny_backbone):
    return tiny_backbone("vit")


WILD = HeadRun(HeadConfig("mean", feature_norm="none"), learning_rate=1e38)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_diverged_head_is_reported_and_harms_no_other(precision, backbone, tmp_path, caplog):
    """It has no metrics, ranks last, trains no further; its neighbour ends bit for bit as it would alone."""
    ends = {}
    for runs in ({"wild": WILD, "calm": RUNS["gap"]}, {"calm": RUNS["gap"]}):
        sweep = make_sweep(backbone, runs)
        trainer = make_trainer(sweep, tmp_path / str(len(runs)), optimizer="sgd", mixed_precision=precision)
        ends[len(runs)] = (trainer.train(), head_tensors(sweep))
    assert "Head wild diverged at step" in caplog.text
    assert "calm" not in caplog.text
    results, tensors = ends[2]
    wild, calm = results.head("wild"), results.head("calm")
    assert wild.diverged in range(1, 7) and (wild.best_epoch, wild.validation, len(wild.history)) == (0, {}, 1)
    assert calm.diverged is None and results.best is calm and len(calm.history) == 3
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in ends[1][1].items())
    assert all(tensor.isfinite().all() for key, tensor in tensors.items() if "norm" not in key)
    tested = trainer_of_two(backbone, tmp_path, precision)
    assert tested.head("wild").test is None and tested.head("calm").test["top1"] > 0
    assert "diverged" in list(tested.table().columns[3].cells)
    assert SweepResults.load(tmp_path / "tested" / "results.json").head("wild").diverged == wild.diverged


def trainer_of_two(backbone, folder, precision):
    """Results, with the test split, of a run in which a head diverges."""
    sweep = make_sweep(backbone, {"wild": WILD, "calm": RUNS["gap"]})
    trainer = make_trainer(sweep, folder / "tested", optimizer="sgd", mixed_precision=precision, num_train_epochs=1)
    trainer.train()
    return trainer.test(image_dataset(6))


def test_a_later_divergence_leaves_the_good_epochs(backbone, tmp_path, monkeypatch):
    """What a head was at its best epoch counts; after its divergence it trains no further."""
    sweep = make_sweep(backbone, {"gap": RUNS["gap"], "ep": RUNS["ep"]})
    original = TrainingLoop._losses

    def losses(loop, names, batch, split):
        factors = torch.tensor([torch.inf if (name, loop.steps_done) == ("gap", 13) else 1.0 for name in names])
        return original(loop, names, batch, split) * factors

    monkeypatch.setattr(TrainingLoop, "_losses", losses)
    results = make_trainer(sweep, tmp_path, num_train_epochs=4).train()
    assert results.head("gap").diverged == 14 and results.head("ep").diverged is None
    assert [set(epoch) == {"epoch", "train_loss"} for epoch in results.head("gap").history] == [False, False, True]
    assert results.head("gap").best_epoch in (1, 2) and len(results.head("ep").history) == 4


def test_a_run_without_a_good_head_stops(backbone, tmp_path):
    """Where every head diverges, the error says what to do."""
    with pytest.raises(ValueError, match=r"All heads diverged: \['wild'\]. Lower the learning rates"):
        make_trainer(make_sweep(backbone, {"wild": WILD}), tmp_path, optimizer="sgd").train()


def test_a_head_stays_diverged_after_a_resume(backbone, tmp_path, monkeypatch):
    """Stopped in the epoch in which it diverged: it is not woken, and its step is that of the uninterrupted run."""
    original = TrainingLoop._step

    def stop(loop, step):
        if loop.steps_done == 5:
            raise KeyboardInterrupt
        original(loop, step)

    runs, options = {"wild": WILD, "calm": RUNS["gap"]}, {"optimizer": "sgd", "save_steps": 1, "num_train_epochs": 2}
    whole = make_trainer(make_sweep(backbone, runs), tmp_path / "whole", **options).train()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingLoop, "_step", stop)
        make_trainer(make_sweep(backbone, runs), tmp_path / "cut", **options).train()
    resumed = make_trainer(make_sweep(backbone, runs), tmp_path / "cut", resume=True, **options).train()
    assert resumed.head("wild").diverged == whole.head("wild").diverged <= 5
    assert resumed.head("calm").history == whole.head("calm").history


def test_a_diverged_baseline_gives_way(backbone, tmp_path, caplog):
    """The test split is scored all the same, against the selected head."""
    trainer = make_trainer(make_sweep(backbone, {"wild": WILD, "calm": RUNS["gap"]}), tmp_path, optimizer="sgd")
    trainer.train()
    results = trainer.test(image_dataset(6), baseline="wild")
    assert results.baseline == "calm" and results.head("calm").test["top1_difference"] == [0, 0, 0]
    assert "The baseline wild diverged; heads are compared with calm." in caplog.text
