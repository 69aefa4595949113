"""A run goes on as the same run or not at all: same backbone, images, views, heads; any number of processes."""

import pytest
import torch
from test_resume import LABELS, interrupted

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.files.checksums import load_checked, save_checked
from attentive_probes.training.steps import loop as loop_module
from spawned import on_processes
from tiers import mostly_slow
from tiny import image_dataset

PLAIN = {
    "ep": HeadRun(HeadConfig("ep", {"num_queries": 4}), learning_rate=0.05),
    "aim": HeadRun(HeadConfig("aim", {"num_attention_heads": 4})),
}


def changed(folder, backbone, runs=PLAIN, train=None, validation=None, augmentation=None, perturb=None, **options):
    """A continuation of `interrupted(...)` in which something differs."""
    sweep = ProbeSweep.from_backbone(backbone, runs, labels=options.pop("labels", LABELS))
    if perturb is not None:
        perturb(sweep)
    arguments = ProbeTrainingArguments(
        str(folder), **{"num_train_epochs": 4, "batch_size": 8, "eval_batch_size": 16, "resume": True, **options}
    )
    data = (train or image_dataset(24), validation or image_dataset(12, seed=1))
    return ProbeTrainer(sweep, arguments, *data, augmentation=augmentation)


def other_weights(sweep):
    with torch.no_grad():
        next(sweep.backbone.parameters()).mul_(1.01)


def other_processor(sweep):
    sweep.image_processor.image_mean = [0.1, 0.2, 0.3]


OTHER_SEEDS = {name: HeadRun(run.head, run.learning_rate, seed=7) for name, run in PLAIN.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    mostly_slow(
        [
            ({"perturb": other_weights}, "has backbone="),
            ({"perturb": other_processor}, "has image processor="),
            ({"train": image_dataset(24, seed=3)}, "has train images="),
            ({"train": image_dataset(24).select(range(23, -1, -1))}, "has train images="),
            ({"validation": image_dataset(12, seed=9)}, "has validation images="),
            ({"augmentation": None}, "has augmentation="),
            ({"augmentation": Augmentation(flip=False)}, "has augmentation="),
            ({"labels": ["band 0", "band 1", "band 2", "band 3"]}, "has classes="),
            (
                {"runs": {name: HeadRun(run.head, run.learning_rate, seed=7) for name, run in PLAIN.items()}},
                "other heads",
            ),
            ({"seed": 1}, "other heads|has seed=0, not 1"),
        ],
        [0, 2, 9],
    ),
)
def test_another_run_is_not_gone_on_with(tiny_backbone, tmp_path, monkeypatch, change, message):
    """Each difference is named, before anything is written."""
    interrupted(tmp_path, tiny_backbone, monkeypatch, 4, runs=PLAIN)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        changed(tmp_path, tiny_backbone("vit"), **{"augmentation": Augmentation(), **change})
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    changed(tmp_path, tiny_backbone("vit"), augmentation=Augmentation()).train()


def test_other_versions_draw_a_warning(tiny_backbone, tmp_path, monkeypatch, caplog):
    """Numbers may differ from one release to the next; that is said, and the run goes on."""
    interrupted(tmp_path, tiny_backbone, monkeypatch, 4, runs=PLAIN)
    state = load_checked(tmp_path / "checkpoints" / "state.pt")
    state["identity"]["versions"]["torch"] = "1.0"
    save_checked(state, tmp_path / "checkpoints" / "state.pt")
    changed(tmp_path, tiny_backbone("vit"), augmentation=Augmentation()).train()
    assert "begun with versions=" in caplog.text


def work(folder, backbone, stop=None, resume=False):
    """Weights of a run, or of its first steps, on as many processes as there are."""
    original, seen = loop_module.TrainingLoop._step, []

    def step(loop, parts):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(1)
        return original(loop, parts)

    loop_module.TrainingLoop._step = step
    try:
        trainer = changed(folder, backbone, resume=resume, save_steps=2, batch_size=7, drop_last=False)
        trainer.train()
    except KeyboardInterrupt:
        return {}
    finally:
        loop_module.TrainingLoop._step = original
    return {f"{n}/{k}": v for n, head in trainer.sweep.heads.items() for k, v in head.state_dict().items()}


@pytest.mark.parametrize(("before", "after"), [(1, 2), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_other_processes(before, after, tiny_backbone, tmp_path):
    """Stopped within an epoch on one process and resumed on two, or the other way round: the run of one process."""
    backbone = str(tiny_backbone("vit"))
    whole = work(tmp_path / "whole", backbone)
    on_processes(before, work, tmp_path / "cut", backbone, 6)
    for tensors in on_processes(after, work, tmp_path / "cut", backbone, None, True):
        for key, tensor in whole.items():
            assert torch.allclose(tensor, tensors[key], atol=1e-5), key
