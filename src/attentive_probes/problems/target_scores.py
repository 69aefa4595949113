"""What one head said about images with several labels each, or with numbers to predict, and the metrics of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from attentive_probes.problems.base import Metric, Problem
from attentive_probes.problems.target_scale import TargetScale
from attentive_probes.scores.resampling import Resampled, compare_resampled, interval_of, resample


@dataclass(frozen=True)
class TargetScores:
    """Scores `(N, C)` and targets `(N, C)`, or `(N,)`, of all images, on the CPU: metrics rank or resample them.

    Args:
        logits: What the head said; for a regression its predictions.
        labels: Zeros and ones, or numbers.
        problem: What the targets are.
        rows: Identities `(N,)` of the images, where they are known.
        groups: Group `(N,)` of images that are no independent draws, for intervals.
    """

    logits: Tensor
    labels: Tensor
    problem: Problem
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

        return {name: values(metric) for name, metric in self.problem.metrics.items()}

    def rescaled(self, scale: TargetScale) -> TargetScores:
        """Scores of heads in training, as if they gave targets."""
        return replace(self, logits=scale.restored(self.logits))

    def metrics(self) -> dict[str, float]:
        """The loss (cross-entropy of each label, or squared error, averaged) and all metrics of the problem.

        Squared errors of several targets are in units of their deviations, as their absolute ones.

        Raises:
            ValueError: If a score is no number.
        """
        loss = self.problem.loss(self.logits, self.labels)
        return {"loss": loss, **self.problem.all_metrics(self.logits, self.labels)}

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
        metrics |= self.problem.details(self.logits, self.labels)
        theirs = baseline.metrics()
        for name, values in self.resampled.items():
            compared = compare_resampled(metrics[name] - theirs[name], values, baseline.resampled[name])
            if compared is not None:
                metrics |= {f"{name}_difference": list(compared[:3]), f"{name}_p": compared.p}
        return metrics
