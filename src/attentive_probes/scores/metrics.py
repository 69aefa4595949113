"""Metrics: plain functions of scores and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from attentive_probes.files.untrusted import fits
from attentive_probes.scores import ranking
from attentive_probes.scores.class_scores import NO_NUMBERS, ClassScores
from attentive_probes.scores.class_sums import score_classes


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

    Precision among all images that score as high as each positive one, averaged, so that the order of equal scores does
    not count; labels without a positive image are left out.

    Raises:
        ValueError: If a score is no number.
    """
    return 100 * _over_columns(lambda column, truth: ranking.auprc(column, truth > 0), scores, labels)


def mean_absolute_error(scores: Tensor, labels: Tensor) -> float:
    """Mean distance of predictions `(B,)` or `(B, C)` from their targets.

    Of several targets each is in units of its own deviation, so that none outweighs the others by its unit.

    Raises:
        ValueError: If a score is no number.
    """
    return float(np.mean(absolute_errors(scores, labels) / _units(labels)))


def absolute_errors(scores: Tensor, labels: Tensor) -> np.ndarray:
    """Mean distance of predictions from each target, in its own unit, `(C,)`; shapes as above.

    Raises:
        ValueError: If a score is no number.
    """
    found, targets = _columns(scores, labels)
    return np.abs(found - targets).mean(0)


def squared_error(scores: Tensor, labels: Tensor) -> float:
    """Mean squared distance of predictions from their targets, units as of `mean_absolute_error`.

    Raises:
        ValueError: If a score is no number.
    """
    found, targets = _columns(scores, labels)
    return float(np.mean(np.square(found - targets).mean(0) / _units(labels) ** 2))


def r2(scores: Tensor, labels: Tensor) -> float:
    """Share of the variance that predictions `(B,)` or `(B, C)` explain, the mean over targets; 0 is their mean.

    Targets that are constant are left out.

    Raises:
        ValueError: If a score is no number.
    """
    return _over_columns(_explained, scores, labels)


def _explained(scores: np.ndarray, labels: np.ndarray) -> float:
    total = float(np.square(labels - labels.mean()).sum())
    return 1 - float(np.square(labels - scores).sum()) / total if total else float("nan")


def _columns(scores: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets `(B, C)` in double precision."""
    _check_numbers(scores)
    return tuple(part.reshape(len(labels), -1).double().cpu().numpy() for part in (scores, labels))  # type: ignore[return-value]  # two


def _units(labels: Tensor) -> np.ndarray:
    """What targets are measured in, `(C,)`: their deviations, where there are several."""
    targets = labels.reshape(len(labels), -1).double().cpu().numpy()
    deviations = targets.std(0)
    return np.where(deviations > 0, deviations, 1.0) if targets.shape[1] > 1 else np.ones(1)


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
    found, columns = _columns(scores, labels)
    values = [metric(found[:, i], columns[:, i]) for i in range(columns.shape[1])]
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _check_numbers(scores: Tensor) -> None:
    broken = int(scores.reshape(len(scores), -1).isnan().any(1).sum())
    if broken:
        raise ValueError(NO_NUMBERS.format(broken, len(scores)))


def check_metrics(metrics: dict[str, Any]) -> None:
    """Check that metrics are numbers, their intervals pairs, and their differences triples.

    Raises:
        ValueError: If one is not; the text names it.
    """
    lengths = {"_interval": tuple[float, float], "_difference": tuple[float, float, float]}
    for name, value in metrics.items():
        hint: Any = next((hint for ending, hint in lengths.items() if name.endswith(ending)), float)
        hint = list[Any] if name in ("per_class", "confusion", "reliability", "per_target") else hint
        hint = dict[str, dict[str, Any]] if name == "slices" else hint
        may_be_none = not name.endswith("_difference")
        if not (value is None and may_be_none) and not fits(value, hint):
            raise ValueError(f"the metric {name} is {str(value)[:80]}, which is no {hint}")
