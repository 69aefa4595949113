"""What one head got right in a classification, and the metrics that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attentive_probes.scores.image_records import ImageRecords
from attentive_probes.scores.statistics import (
    Comparison,
    clustered_interval,
    compare_shares,
    proportion_interval,
)

MAX_CONFUSION = 100  # classes, up to which the confusion matrix is worth its space
NO_NUMBERS = "Scores of {} of {} images are no numbers: no metric is known."


@dataclass(frozen=True)
class ClassScores:
    """What one head got right about N images of C classes.

    Args:
        correct: Per image, whether the best class is the label: bool `(N,)`.
        num_in_top5: Images whose label is among the five best classes.
        loss: Mean negative log-likelihood of the labels.
        bins: Images, correct predictions and confidence, summed by bin of confidence, `(15, 3)`.
        hits: Right predictions by label `(C,)`.
        predicted: Answers by class `(C,)`.
        counts: Images by label `(C,)`.
        confusion: Images by label (row) and answer (column) `(C, C)`, where it was asked for.
        are_finite: Whether every score is a finite number.
        num_broken: Images with a score that is no number.
        records: What it answered image by image, where that was kept.
    """

    correct: np.ndarray
    num_in_top5: int
    loss: float
    bins: Tensor
    hits: Tensor
    predicted: Tensor
    counts: Tensor
    confusion: Tensor | None = None
    are_finite: bool = True
    num_broken: int = 0
    records: ImageRecords | None = None

    @property
    def num_images(self) -> int:
        """Number of images N."""
        return len(self.correct)

    @property
    def rows(self) -> np.ndarray | None:
        """Identities `(N,)` of the images, where predictions were kept image by image."""
        return None if self.records is None else self.records.rows

    @property
    def top1(self) -> float:
        """Share of images whose best class is the label, in percent."""
        return 100 * self.correct.mean().item()

    @property
    def top5(self) -> float:
        """Share of images whose label is among the five best classes, in percent."""
        return 100 * self.num_in_top5 / self.num_images

    @property
    def balanced_accuracy(self) -> float:
        """Average over the classes that occur of the share of their images that are recognized, in percent."""
        occurs = self.counts > 0
        return 100 * (self.hits[occurs].double() / self.counts[occurs]).mean().item()

    @property
    def macro_f1(self) -> float:
        """Average over the classes that occur, as label or prediction, of the F1 score, in percent."""
        total = self.counts + self.predicted
        return 100 * (2 * self.hits[total > 0].double() / total[total > 0]).mean().item()

    @property
    def ece(self) -> float:
        """Expected calibration error, in percent (arXiv 1706.04599): confidence less accuracy in 15 bins."""
        return 100 * (self.bins[:, 2] - self.bins[:, 1]).abs().sum().item() / self.num_images

    @property
    def reliability(self) -> list[list[float]]:
        """Images, accuracy and mean confidence, both in percent, of each bin of confidence that is not empty."""
        return [[int(n), 100 * hits / n, 100 * sure / n] for n, hits, sure in self.bins.tolist() if n]

    @property
    def per_class(self) -> list[float | None]:
        """Share of the images of each class that are recognized, in percent; `None` for a class without images."""
        pairs = zip(self.hits.tolist(), self.counts.tolist(), strict=True)
        return [100 * hits / count if count else None for hits, count in pairs]

    def metrics(self) -> dict[str, float]:
        """The loss and all metrics.

        Raises:
            ValueError: If a score is no number.
        """
        if self.num_broken:
            raise ValueError(NO_NUMBERS.format(self.num_broken, self.num_images))
        return {name: getattr(self, name) for name in ("loss", "top1", "top5", "balanced_accuracy", "macro_f1", "ece")}

    def intervals(self, groups: np.ndarray | None = None) -> dict[str, list[float]]:
        """`top1_interval` and `top5_interval` (Wilson, in percent); of images in groups `(N,)` the first, if known."""
        if groups is not None:
            found = clustered_interval(self.correct, groups)
            return {} if found is None else {"top1_interval": [100 * end for end in found]}
        hits = {"top1": int(self.correct.sum()), "top5": self.num_in_top5}
        pairs = {name: proportion_interval(number, self.num_images) for name, number in hits.items()}
        return {f"{name}_interval": [100 * end for end in pair] for name, pair in pairs.items()}

    def test_metrics(self, baseline: Any, groups: np.ndarray | None = None) -> dict[str, Any]:
        """`metrics` and `intervals`, accuracy by class, and the difference to a baseline, image by image.

        Args:
            baseline: Scores of another head over the same images.
            groups: Group `(N,)` of images that are no independent draws.

        Raises:
            ValueError: If a score is no number.
        """
        same = Comparison(0.0, 0.0, 0.0, 1.0)
        found = same if baseline is self else compare_shares(self.correct, baseline.correct, groups)
        metrics: dict[str, Any] = {**self.metrics(), **self.intervals(groups)}
        if found is not None:
            metrics["top1_difference"] = [100 * value for value in found[:3]]
            metrics["top1_p"] = found.p
        metrics["per_class"] = self.per_class
        metrics["reliability"] = self.reliability
        if self.confusion is not None and len(self.counts) <= MAX_CONFUSION:
            metrics["confusion"] = self.confusion.tolist()
        return metrics
