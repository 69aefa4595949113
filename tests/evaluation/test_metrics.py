import evaluate
import numpy as np
import pytest
import torch

from attentive_probes.evaluation.metrics import METRICS, ScoreMetric, classification_metrics

SCORES = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
LABELS = torch.tensor([0, 1, 1, 2, 0])


def test_values_by_hand():
    """Four of five right; class accuracies 1, 1/2, 1; with three classes every label is among the best five."""
    assert classification_metrics(SCORES, LABELS) == pytest.approx(
        {"top1": 80.0, "top5": 100.0, "balanced_accuracy": 100 * 2.5 / 3}
    )


def test_top5_counts_ranks():
    """A label on rank five counts, on rank six it does not."""
    scores = torch.arange(8.0).flip(0).expand(2, 8)
    assert METRICS["top5"](scores, torch.tensor([4, 5])) == 50.0


def test_absent_classes_do_not_count():
    """Balanced accuracy averages over the classes that occur."""
    assert METRICS["balanced_accuracy"](SCORES[:2], LABELS[:2]) == 100.0


def test_local_evaluate_modules():
    """As `evaluate.Metric`s they give the same values, in batches and combined, without a network."""
    combined = evaluate.combine([ScoreMetric(name, keep_in_memory=True) for name in METRICS])
    combined.add_batch(predictions=SCORES[:2].numpy(), references=LABELS[:2].numpy())
    combined.add_batch(predictions=SCORES[2:].numpy(), references=LABELS[2:].numpy())
    assert combined.compute() == pytest.approx(classification_metrics(SCORES, LABELS))
    top1 = ScoreMetric("top1", keep_in_memory=True)
    assert top1.compute(predictions=np.eye(3), references=[0, 1, 2]) == {"top1": 100.0}
    with pytest.raises(ValueError, match="Did you mean 'top1'"):
        ScoreMetric("top11")
