import evaluate
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score

from attentive_probes.evaluation.predictions.evaluate_library import ScoreMetric
from attentive_probes.problems import PROBLEMS
from attentive_probes.scores.class_sums import score_classes

SINGLE, MULTI, NUMBERS = PROBLEMS.values()
SCORES = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
LABELS = torch.tensor([0, 1, 1, 2, 0])


def test_values_by_hand():
    """Four of five right; class accuracies 1, 1/2, 1; with three classes every label is among the best five."""
    found = SINGLE.all_metrics(SCORES, LABELS)
    expected = {"top1": 80.0, "top5": 100.0, "balanced_accuracy": 100 * 2.5 / 3}
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["macro_f1"] == pytest.approx(100 * f1_score(LABELS, SCORES.argmax(1), average="macro"))
    assert score_classes(SCORES, LABELS, confusion=True).confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert score_classes(SCORES, LABELS).per_class == [100.0, 50.0, 100.0]
    assert score_classes(SCORES[:2], LABELS[:2]).per_class == [100.0, 100.0, None]


def test_calibration_by_hand():
    """Two bins: ten images at confidence 0.8 of which six are right, ten at 0.6 of which six are right."""
    confidence = torch.tensor([0.8] * 10 + [0.6] * 10)
    scores = torch.stack([confidence, 1 - confidence], 1).log()
    labels = torch.tensor(([0] * 6 + [1] * 4) * 2)
    assert SINGLE.metrics["ece"](scores, labels) == pytest.approx(100 * (0.2 + 0.0) / 2, abs=1e-4)


def test_multi_label_and_regression():
    """The values of scikit-learn."""
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(50, 4, generator=generator), (torch.rand(50, 4, generator=generator) > 0.6).long()
    labels[:, 3] = 0  # no positive image: left out
    expected = 100 * average_precision_score(labels[:, :3], scores[:, :3], average="macro")
    assert MULTI.metrics["mean_average_precision"](scores, labels.float()) == pytest.approx(expected)
    targets = torch.rand(50, generator=generator)
    assert NUMBERS.metrics["r2"](scores[:, :1], targets) == pytest.approx(r2_score(targets, scores[:, 0]), abs=1e-6)
    expected = mean_absolute_error(targets, scores[:, 0])
    assert NUMBERS.metrics["mean_absolute_error"](scores[:, :1], targets) == pytest.approx(expected, abs=1e-6)
    metric = ScoreMetric("mean_average_precision", keep_in_memory=True)
    found = metric.compute(predictions=scores.numpy(), references=labels.float().numpy())
    assert found == pytest.approx({"mean_average_precision": MULTI.metrics["mean_average_precision"](scores, labels)})


def test_top5_counts_ranks():
    """A label on rank five counts, on rank six it does not."""
    scores = torch.arange(8.0).flip(0).expand(2, 8)
    assert SINGLE.metrics["top5"](scores, torch.tensor([4, 5])) == 50.0


def test_absent_classes_do_not_count():
    """Balanced accuracy averages over the classes that occur."""
    assert SINGLE.metrics["balanced_accuracy"](SCORES[:2], LABELS[:2]) == 100.0


def test_local_evaluate_modules():
    """As `evaluate.Metric`s they give the same values, in batches and combined, without a network."""
    combined = evaluate.combine([ScoreMetric(name, keep_in_memory=True) for name in SINGLE.metrics])
    combined.add_batch(predictions=SCORES[:2].numpy(), references=LABELS[:2].numpy())
    combined.add_batch(predictions=SCORES[2:].numpy(), references=LABELS[2:].numpy())
    assert combined.compute() == pytest.approx(SINGLE.all_metrics(SCORES, LABELS))
    top1 = ScoreMetric("top1", keep_in_memory=True)
    assert top1.compute(predictions=np.eye(3), references=[0, 1, 2]) == {"top1": 100.0}
    with pytest.raises(ValueError, match="Did you mean 'top1'"):
        ScoreMetric("top11")
