"""Regression on numbers as people have them: standardized for learning, folded back into the last layer."""

import pytest
import torch
from transformers import ViTImageProcessorPil

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep, ProbeTrainer
from attentive_probes import ProbeTrainingArguments as Arguments
from attentive_probes.data.images import ImageOptions
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.training.state.checkpoint import load_states
from attentive_probes.training.steps import epochs as run_of_epochs
from colours import Colours, table
from tiers import mostly_slow

PROCESSOR = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
KINDS = [i % 4 for i in range(48)]
RUNS = {"mean": HeadRun(HeadConfig("mean")), "plain": HeadRun(HeadConfig("mean", feature_norm="none"))}


def data(value):
    return table(KINDS, [value(kind) for kind in KINDS])


def sweep(num_labels=1, runs=RUNS):
    options = {"num_labels": num_labels, "problem_type": "regression", "image_processor": PROCESSOR}
    return ProbeSweep.from_backbone(Colours(), runs, **options)


def arguments(folder, **options):
    return Arguments(str(folder), **{"num_train_epochs": 20, "batch_size": 12, "learning_rate": 0.1, **options})


@pytest.mark.parametrize(
    "value",
    mostly_slow(
        [
            lambda k: 20.0 + 20 * k,
            lambda k: 2e5 + 1e5 * k,
            lambda k: 1e-4 * k,
            lambda k: 1e6 + k,
            lambda k: 7 * k - 300,
        ],
        [3],
    ),
    ids=["ages", "prices", "small", "offset", "negative"],
)
def test_any_unit_is_learned_alike(value, tmp_path):
    """Whatever the unit of the targets, the same R2 as in any other; the saved probe gives targets of that unit."""
    results = ProbeTrainer(sweep(), arguments(tmp_path), data(value), data(value), augmentation=None).train()
    reference = ProbeTrainer(sweep(), arguments(tmp_path / "r"), data(float), data(float), augmentation=None).train()
    for head in results.heads:
        expected = reference.head(head.name)
        assert head.validation["r2"] == pytest.approx(expected.validation["r2"], abs=2e-3) and head.best_epoch > 1
        assert [row["train_loss"] for row in head.history] == pytest.approx(
            [row["train_loss"] for row in expected.history], rel=2e-2, abs=1e-5
        )
    probe = ProbeForImageClassification.from_pretrained(tmp_path / "probes" / "mean", backbone=Colours()).eval()
    assert evaluate_probe(probe, data(value))["r2"] == pytest.approx(results.head("mean").validation["r2"], abs=1e-3)
    best = load_states(tmp_path / "checkpoints" / "best.safetensors")["mean"]
    torch.testing.assert_close(best["classifier.bias"], probe.head.classifier.bias.data)


def test_several_targets_of_different_size(tmp_path):
    """Each target is standardized by itself."""
    rows = data(lambda k: [20.0 + k, 1e5 * (3 - k)])
    trainer = ProbeTrainer(sweep(2), arguments(tmp_path), rows, rows, augmentation=None)
    trainer.train()
    pixels = torch.stack([trainer.run.processor(row["image"], return_tensors="pt")["pixel_values"][0] for row in rows])
    predicted = trainer.probe("mean").eval()(pixels).logits
    error = (predicted - torch.tensor(rows["label"][:])).abs().mean(0)
    assert error[0] < 0.5 and error[1] < 5e4


def test_a_trained_probe_goes_on_from_what_it_gives(tmp_path):
    """Trained again at rate zero, a probe gives what it gave; resumed, a run ends as one that was not stopped."""
    prices = data(lambda k: 2e5 + 1e5 * k)
    ProbeTrainer(sweep(), arguments(tmp_path / "a"), prices, prices, augmentation=None).train()
    load = lambda: ProbeForImageClassification.from_pretrained(tmp_path / "a/probes/plain", backbone=Colours())  # noqa: E731
    again, pixels = load(), torch.rand(3, 3, 8, 8)
    expected = load().eval()(pixels).logits
    still = arguments(tmp_path / "b", learning_rate=0.0, num_train_epochs=1)
    ProbeTrainer(again, still, prices, prices, augmentation=None).train()
    torch.testing.assert_close(again.eval()(pixels).logits, expected, rtol=1e-5, atol=1.0)
    whole = ProbeTrainer(sweep(), arguments(tmp_path / "c", num_train_epochs=4), prices, prices, augmentation=None)
    whole.train()
    stopped = ProbeTrainer(sweep(), arguments(tmp_path / "d", num_train_epochs=4), prices, prices, augmentation=None)
    epochs = []

    def stop(*_):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    original = run_of_epochs.note_sizes
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_of_epochs, "note_sizes", lambda *a, **splits: (original(*a, **splits), stop()))
        stopped.train()
    resumed = ProbeTrainer(
        sweep(), arguments(tmp_path / "d", num_train_epochs=4, resume=True), prices, prices, augmentation=None
    )
    resumed.train()
    for name in RUNS:
        assert resumed.results.head(name).history == whole.results.head(name).history


def test_a_constant_target_is_refused(tmp_path):
    """There is nothing to learn from targets that are all the same; which one is said."""
    same = data(lambda k: 7.5)
    with pytest.raises(ValueError, match="The target is 7.5 for all training images"):
        ProbeTrainer(sweep(), arguments(tmp_path), same, same)
    second = data(lambda k: [float(k), 3.0])
    with pytest.raises(ValueError, match="The target 1 is 3 for all training images"):
        ProbeTrainer(sweep(2), arguments(tmp_path), second, second, images=ImageOptions())
