"""What one head said about images with several labels each, or with numbers to predict, and the metrics of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.evaluation.metrics import METRICS_OF, Metric, absolute_errors, all_metrics, r2, squared_error
from attentive_probes.evaluation.resampling import Resampled, compare_resampled, interval_of, resample


@dataclass(frozen=True)
class TargetScores:
    """Scores `(N, C)` and targets `(N, C)`, or `(N,)`, of all images, on the CPU: metrics rank or resample them.

    Args:
        logits: What the head said; for a regression its predictions.
        labels: Zeros and ones, or numbers.
        problem_type: `multi_label_classification` or `regression`.
        rows: Identities `(N,)` of the images, where they are known.
        groups: Group `(N,)` of images that are no independent draws, for intervals.
    """

    logits: Tensor
    labels: Tensor
    problem_type: str
    rows: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def num_images(self) -> int:
        """Number of images N."""
        return len(self.labels)

    @property
    def are_finite(self) -> bool:
        """Whether every score is a finite number."""
        return bool(self.logits.isfinite().all())

    @cached_property
    def resampled(self) -> dict[str, Resampled]:
        """Metric -> its values on draws of the images, or of their groups."""

        def values(metric: Metric) -> Resampled:
            return resample(lambda rows: metric(self.logits[rows], self.labels[rows]), len(self.labels), self.groups)

        return {name: values(metric) for name, metric in METRICS_OF[self.problem_type].items()}

    def metrics(self) -> dict[str, float]:
        """The loss (cross-entropy of each label, or squared error, averaged) and all metrics of the problem.

        Squared errors of several targets are in units of their deviations, as their absolute ones.

        Raises:
            ValueError: If a score is no number.
        """
        metrics = all_metrics(self.logits, self.labels, self.problem_type)
        if self.problem_type == "regression":
            return {"loss": squared_error(self.logits, self.labels), **metrics}
        targets = self.labels.reshape(self.logits.shape).to(self.logits.dtype)
        return {"loss": F.binary_cross_entropy_with_logits(self.logits, targets).item(), **metrics}

    def per_target(self) -> list[list[float]]:
        """Mean absolute error, in its own unit, and share of variance explained, of each target of a regression."""
        labels, logits = (part.reshape(len(self.labels), -1) for part in (self.labels, self.logits))
        errors = absolute_errors(logits, labels).tolist()
        return [[error, r2(logits[:, i], labels[:, i])] for i, error in enumerate(errors)]

    def intervals(self, groups: np.ndarray | None = None) -> dict[str, list[float]]:
        """`<metric>_interval` (bootstrap), where known; of images in groups `(N,)`, by these."""
        if groups is not None and self.groups is None:
            return replace(self, groups=groups).intervals()
        found = {name: interval_of(values) for name, values in self.resampled.items()}
        return {f"{name}_interval": list(pair) for name, pair in found.items() if pair is not None}

    def test_metrics(self, baseline: Any, groups: np.ndarray | None = None) -> dict[str, Any]:
        """`metrics` and `intervals`, with differences to a baseline over the same draws of images.

        Args:
            baseline: Scores of another head over the same images.
            groups: Group `(N,)` of images that are no independent draws.

        Raises:
            ValueError: If a score is no number.
        """
        if groups is not None and self.groups is None:
            return replace(self, groups=groups).test_metrics(replace(baseline, groups=groups))
        metrics: dict[str, Any] = {**self.metrics(), **self.intervals()}
        if self.problem_type == "regression" and self.labels.ndim == 2 and self.labels.shape[1] > 1:
            metrics["per_target"] = self.per_target()
        theirs = baseline.metrics()
        for name, values in self.resampled.items():
            compared = compare_resampled(metrics[name] - theirs[name], values, baseline.resampled[name])
            if compared is not None:
                metrics |= {f"{name}_difference": list(compared[:3]), f"{name}_p": compared.p}
        return metrics
