"""Metrics: plain functions of scores and labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def top_k_correct(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the `min(k, C)` best classes: scores `(B, C)`, labels `(B,)` -> bool `(B,)`.

    Ties count against the prediction only beyond rank k, as in `torch.topk`. A class of score `-inf`, such as one
    without a single vote, is never among them.

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    return ((best.indices == labels[:, None]) & (best.values > -torch.inf)).any(dim=1)


def _check_numbers(scores: Tensor) -> None:
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} of {scores.numel()} scores are no numbers: no metric is known.")


def top1(scores: Tensor, labels: Tensor) -> float:
    """Share of images whose best class is the label, in percent."""
    return 100 * top_k_correct(scores, labels, 1).double().mean().item()


def top5(scores: Tensor, labels: Tensor) -> float:
    """Share of images whose label is among the five best classes, in percent."""
    return 100 * top_k_correct(scores, labels, 5).double().mean().item()


def balanced_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Average over the classes that occur of the share of their images that are recognized, in percent."""
    correct = top_k_correct(scores, labels, 1).double()
    per_class = torch.zeros(scores.shape[1], dtype=torch.double, device=correct.device).index_add_(0, labels, correct)
    counts = labels.bincount(minlength=scores.shape[1])
    return 100 * (per_class[counts > 0] / counts[counts > 0]).mean().item()


def macro_f1(scores: Tensor, labels: Tensor) -> float:
    """Average over the classes that occur, as label or prediction, of the F1 score, in percent."""
    table = confusion_matrix(scores, labels).double()
    hits, occurs = table.diagonal(), table.sum(0) + table.sum(1)
    return 100 * (2 * hits[occurs > 0] / occurs[occurs > 0]).mean().item()


def ece(scores: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over 15 bins of confidence, in percent.

    "On Calibration of Modern Neural Networks", arXiv 1706.04599.

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    confidence, prediction = scores.double().softmax(1).max(1)
    gap = confidence - (prediction == labels).double()
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    sums = torch.zeros(num_bins, dtype=torch.double, device=scores.device).index_add_(0, bins, gap)
    return 100 * sums.abs().sum().item() / len(labels)


def confusion_matrix(scores: Tensor, labels: Tensor) -> Tensor:
    """Number of images `(C, C)` by label (row) and best class (column).

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    num_labels = scores.shape[1]
    return torch.bincount(labels * num_labels + scores.argmax(1), minlength=num_labels**2).view(num_labels, num_labels)


def per_class_accuracy(scores: Tensor, labels: Tensor) -> list[float | None]:
    """Share of the images of each class that are recognized, in percent; `None` for a class without images."""
    table = confusion_matrix(scores, labels)
    return [100 * row[i].item() / row.sum().item() if row.sum() else None for i, row in enumerate(table)]


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over labels of the average precision, in percent: scores and zeros or ones `(B, C)`.

    Precision at each positive image in order of falling score, averaged; labels without a positive image are left out.

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    order = scores.argsort(dim=0, descending=True, stable=True)
    hits = labels.gather(0, order).double()
    ranks = torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    positives = hits.sum(0)
    precisions = (hits * hits.cumsum(0) / ranks).sum(0)
    return 100 * (precisions[positives > 0] / positives[positives > 0]).mean().item()


def mean_absolute_error(scores: Tensor, labels: Tensor) -> float:
    """Mean distance of predictions `(B,)` or `(B, C)` from their targets.

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    return (scores.double().reshape(labels.shape) - labels.double()).abs().mean().item()


def r2(scores: Tensor, labels: Tensor) -> float:
    """Share of the targets' variance that predictions `(B,)` or `(B, C)` explain; 1 is perfect, 0 is the mean.

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    labels = labels.double()
    residual = (labels - scores.double().reshape(labels.shape)).square().sum()
    return (1 - residual / (labels - labels.mean(0)).square().sum()).item()


Metric = Callable[[Tensor, Tensor], float]
MULTI_LABEL_METRICS: dict[str, Metric] = {"mean_average_precision": mean_average_precision}
REGRESSION_METRICS: dict[str, Metric] = {"mean_absolute_error": mean_absolute_error, "r2": r2}
METRICS: dict[str, Metric] = {
    "top1": top1,
    "top5": top5,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "ece": ece,
}
METRICS_OF: dict[str, dict[str, Metric]] = {
    "single_label_classification": METRICS,
    "multi_label_classification": MULTI_LABEL_METRICS,
    "regression": REGRESSION_METRICS,
}
SMALLER_IS_BETTER = ("loss", "ece", "mean_absolute_error")


def all_metrics(scores: Tensor, labels: Tensor, problem_type: str) -> dict[str, float]:
    """All metrics of a problem, for scores `(B, C)` and labels `(B,)`, or `(B, C)`.

    Raises:
        ValueError: If a score is no number.
    """
    _check_numbers(scores)
    return {name: metric(scores, labels) for name, metric in METRICS_OF[problem_type].items()}
