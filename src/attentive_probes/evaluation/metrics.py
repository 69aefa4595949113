"""Metrics: plain functions of scores and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attentive_probes.evaluation import ranking
from attentive_probes.evaluation.class_scores import NO_NUMBERS, ClassScores
from attentive_probes.evaluation.class_sums import score_classes
from attentive_probes.foreign_files import fits


def top1(scores: Tensor, labels: Tensor) -> float:
    """Share of images whose best class is the label, in percent: scores `(B, C)`, labels `(B,)`."""
    return class_scores(scores, labels).top1


def top5(scores: Tensor, labels: Tensor) -> float:
    """Share of images whose label is among the five best classes, in percent: scores `(B, C)`, labels `(B,)`.

    A class of score `-inf`, such as one without a single vote, is never among them.
    """
    return class_scores(scores, labels).top5


def balanced_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Average over the classes that occur of the share of their images that are recognized, in percent."""
    return class_scores(scores, labels).balanced_accuracy


def macro_f1(scores: Tensor, labels: Tensor) -> float:
    """Average over the classes that occur, as label or prediction, of the F1 score, in percent."""
    return class_scores(scores, labels).macro_f1


def ece(scores: Tensor, labels: Tensor) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over 15 bins of confidence, in percent.

    "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """
    return class_scores(scores, labels).ece


def class_scores(scores: Tensor, labels: Tensor) -> ClassScores:
    """All that is known of scores `(B, C)` with labels `(B,)`, in double precision.

    Raises:
        ValueError: If a score is no number.
    """
    found = score_classes(scores.double(), labels)
    if found.num_broken:
        raise ValueError(NO_NUMBERS.format(found.num_broken, found.num_images))
    return found


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


def spearman(scores: Tensor, labels: Tensor) -> float:
    """Rank correlation of predictions and targets, `(B,)` or averaged over the columns of `(B, C)`.

    Raises:
        ValueError: If a score is no number.
    """
    return _over_columns(ranking.spearman, scores, labels)


def pearson(scores: Tensor, labels: Tensor) -> float:
    """Correlation of predictions and targets, `(B,)` or averaged over the columns of `(B, C)`.

    Raises:
        ValueError: If a score is no number.
    """
    return _over_columns(ranking.pearson, scores, labels)


def mean_auroc(scores: Tensor, labels: Tensor) -> float:
    """Mean over labels of the area under the ROC curve, in percent: scores and zeros or ones `(B, C)`.

    Labels that all or no images have are left out.

    Raises:
        ValueError: If a score is no number.
    """
    return 100 * _over_columns(lambda column, truth: ranking.auroc(column, truth > 0), scores, labels)


def _over_columns(metric: Callable[[np.ndarray, np.ndarray], float], scores: Tensor, labels: Tensor) -> float:
    _check_numbers(scores)
    columns = labels.reshape(len(labels), -1).double().cpu().numpy()
    found = scores.reshape(len(labels), -1).double().cpu().numpy()
    values = [metric(found[:, i], columns[:, i]) for i in range(columns.shape[1])]
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _check_numbers(scores: Tensor) -> None:
    broken = int(scores.reshape(len(scores), -1).isnan().any(1).sum())
    if broken:
        raise ValueError(NO_NUMBERS.format(broken, len(scores)))


Metric = Callable[[Tensor, Tensor], float]
MULTI_LABEL_METRICS: dict[str, Metric] = {
    "mean_average_precision": mean_average_precision,
    "mean_auroc": mean_auroc,
}
REGRESSION_METRICS: dict[str, Metric] = {
    "mean_absolute_error": mean_absolute_error,
    "r2": r2,
    "spearman": spearman,
    "pearson": pearson,
}
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
    if problem_type == "single_label_classification":
        found = class_scores(scores, labels)
        return {name: getattr(found, name) for name in METRICS}
    return {name: metric(scores, labels) for name, metric in METRICS_OF[problem_type].items()}


def check_metrics(metrics: dict[str, Any]) -> None:
    """Check that metrics are numbers, their intervals pairs, and their differences triples.

    Raises:
        ValueError: If one is not; the text names it.
    """
    lengths = {"_interval": tuple[float, float], "_difference": tuple[float, float, float]}
    for name, value in metrics.items():
        hint: Any = next((hint for ending, hint in lengths.items() if name.endswith(ending)), float)
        hint = list[Any] if name in ("per_class", "confusion", "reliability") else hint
        hint = dict[str, dict[str, Any]] if name == "slices" else hint
        may_be_none = not name.endswith("_difference")
        if not (value is None and may_be_none) and not fits(value, hint):
            raise ValueError(f"the metric {name} is {str(value)[:80]}, which is no {hint}")
