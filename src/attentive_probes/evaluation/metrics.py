"""Metrics: plain functions for our own loops, and the same functions as local `evaluate.Metric` modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from attentive_probes.naming import unknown_name


def top_k_correct(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the `min(k, C)` best classes: scores `(B, C)`, labels `(B,)` -> bool `(B,)`.

    Ties count against the prediction only beyond rank k, as in `torch.topk`.
    """
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(dim=1)


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


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "top1": top1,
    "top5": top5,
    "balanced_accuracy": balanced_accuracy,
}


def classification_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """All of `METRICS` for scores `(B, C)` and labels `(B,)`, in percent."""
    return {name: metric(scores, labels) for name, metric in METRICS.items()}


class ScoreMetric(evaluate.Metric):
    """One of `METRICS` as a local `evaluate.Metric`: `predictions` are scores `(B, C)`, `references` class ids `(B,)`.

    It needs no script from the Hub and works in `evaluate.combine`.

    Args:
        name: A key of `METRICS`.
        **kwargs: Passed on to `evaluate.Metric`.

    Raises:
        ValueError: If the metric is unknown.
    """

    features: ClassVar[datasets.Features] = datasets.Features(
        {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
    )

    def __init__(self, name: str, **kwargs: Any):
        if name not in METRICS:
            raise ValueError(unknown_name("metric", name, METRICS))
        super().__init__(config_name=name, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        description = METRICS[self.config_name].__doc__ or ""
        return evaluate.MetricInfo(description=description, citation="", features=self.features)

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        scores = torch.from_numpy(np.asarray(predictions, dtype=np.float32))
        return {self.config_name: METRICS[self.config_name](scores, torch.as_tensor(references))}
