"""Scores of every head on every image of a split, each image once, over any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from attentive_probes.data.batches import inputs_of
from attentive_probes.data.steps import StepLoader
from attentive_probes.evaluation.metrics import (
    METRICS_OF,
    Metric,
    all_metrics,
    confusion_matrix,
    per_class_accuracy,
    top_k_correct,
)
from attentive_probes.evaluation.statistics import (
    Comparison,
    bootstrap_values,
    compare_bootstrapped,
    compare_proportions,
    percentile_interval,
    proportion_interval,
)
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.processes import autocast, gather_rows

MAX_CONFUSION = 100  # classes, up to which the confusion matrix is worth its space


@dataclass(frozen=True)
class Scores:
    """What one head said about a split: scores `(B, C)` and labels `(B,)` or `(B, C)` of a problem, on the CPU."""

    logits: Tensor
    labels: Tensor
    problem_type: str = "single_label_classification"

    @cached_property
    def correct(self) -> np.ndarray:
        """Per image, whether the best class is the label: bool `(B,)`."""
        return top_k_correct(self.logits, self.labels, 1).numpy()

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Metric of several labels or of a regression -> its values `(R,)` on draws of the images."""

        def values(metric: Metric) -> np.ndarray:
            return bootstrap_values(lambda rows: metric(self.logits[rows], self.labels[rows]), len(self.labels))

        return {name: values(metric) for name, metric in METRICS_OF[self.problem_type].items()}

    @property
    def are_finite(self) -> bool:
        """Whether every score is a finite number."""
        return bool(self.logits.isfinite().all())

    def metrics(self, config: PreTrainedConfig) -> dict[str, float]:
        """Loss (negative log-likelihood for classes) and all metrics of the problem.

        Raises:
            ValueError: If a score is no number.
        """
        metrics = all_metrics(self.logits, self.labels, config.problem_type)
        return {"loss": ForSequenceClassificationLoss(self.labels, self.logits, config).item(), **metrics}

    def intervals(self, config: PreTrainedConfig) -> dict[str, Any]:
        """`<metric>_interval` of accuracies (Wilson, in percent) and of other metrics (bootstrap), where known."""
        if config.problem_type != "single_label_classification":
            found = {name: percentile_interval(values) for name, values in self.resampled.items()}
            return {f"{name}_interval": list(pair) for name, pair in found.items() if pair is not None}
        hits = {"top1": self.correct, "top5": top_k_correct(self.logits, self.labels, 5).numpy()}
        pairs = {name: proportion_interval(int(right.sum()), len(right)) for name, right in hits.items()}
        return {f"{name}_interval": [100 * end for end in pair] for name, pair in pairs.items()}

    def test_metrics(self, baseline: Scores, config: PreTrainedConfig) -> dict[str, Any]:
        """`metrics` and `intervals`, with differences to a baseline, image by image.

        Raises:
            ValueError: If a score is no number.
        """
        metrics: dict[str, Any] = {**self.metrics(config), **self.intervals(config)}
        if config.problem_type == "single_label_classification":
            is_itself = baseline is self
            found = Comparison(0.0, 0.0, 0.0, 1.0) if is_itself else compare_proportions(self.correct, baseline.correct)
            metrics["top1_difference"] = [100 * value for value in found[:3]]
            metrics["top1_p"] = found.p
            metrics["per_class"] = per_class_accuracy(self.logits, self.labels)
            if self.logits.shape[1] <= MAX_CONFUSION:
                metrics["confusion"] = confusion_matrix(self.logits, self.labels).tolist()
            return metrics
        theirs = baseline.metrics(config)
        for name, values in self.resampled.items():
            compared = compare_bootstrapped(metrics[name] - theirs[name], values, baseline.resampled[name])
            if compared is not None:
                metrics |= {f"{name}_difference": list(compared[:3]), f"{name}_p": compared.p}
        return metrics


@torch.no_grad()
def score_split(
    sweep: ProbeSweep,
    loader: StepLoader,
    accelerator: Accelerator,
    *,
    precision: str = "no",
    tick: Callable[[int], object] | None = None,
) -> dict[str, Scores]:
    """Run all heads over a split in evaluation mode; every process gets all scores, of every image once.

    Heads run in float32, whatever the precision of the backbone.

    Args:
        sweep: The heads, on the device of `accelerator`.
        loader: The split, of which each process reads its share.
        accelerator: Where to run.
        precision: Mixed precision of the backbone: `no`, `bf16` or `fp16`.
        tick: Called with the number of images of each batch.

    Returns:
        Name of the head -> its scores. Memory is `images x heads x classes` floats.

    Raises:
        ValueError: If the split is empty.
    """
    sweep.eval()
    logits, labels, names = [], [], list[str]()
    for parts in loader:
        for batch in send_to_device(parts, accelerator.device, non_blocking=True):
            with autocast(accelerator.device, precision):
                tokens = sweep.tokens_of(**inputs_of(batch))
            with autocast(accelerator.device, "no"):
                outputs = sweep.classify(sweep.sequences(tokens))
            names = list(outputs)
            mine = torch.stack([output.logits for output in outputs.values()], dim=1)  # (B, H, C)
            everyone = gather_rows({"labels": batch["labels"], "logits": mine}, accelerator)
            labels.append(everyone["labels"].cpu())
            logits.append(everyone["logits"].cpu())
            if tick is not None:
                tick(len(labels[-1]))
    if not any(map(len, labels)):
        raise ValueError("There is no image to evaluate on.")
    joined, targets = torch.cat(logits), torch.cat(labels)
    return {name: Scores(joined[:, i], targets, sweep.config.problem_type) for i, name in enumerate(names)}
