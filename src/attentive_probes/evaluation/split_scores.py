"""Scores of every head on every image of a split, each image once, over any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from attentive_probes.evaluation.metrics import all_metrics, confusion_matrix, per_class_accuracy, top_k_correct
from attentive_probes.evaluation.statistics import mean_interval, paired_difference
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.processes import autocast, gather_rows

MAX_CONFUSION = 100  # classes, up to which the confusion matrix is worth its space


@dataclass(frozen=True)
class Scores:
    """What one head said about a split: scores `(B, C)` and labels `(B,)` or `(B, C)`, on the CPU."""

    logits: Tensor
    labels: Tensor

    @property
    def correct(self) -> np.ndarray:
        """Per image, whether the best class is the label: bool `(B,)`."""
        return top_k_correct(self.logits, self.labels, 1).numpy()

    @property
    def are_finite(self) -> bool:
        """Whether every score is a finite number."""
        return bool(self.logits.isfinite().all())

    def metrics(self, config: PreTrainedConfig) -> dict[str, float]:
        """Loss (negative log-likelihood for classes) and all metrics of the problem."""
        loss = ForSequenceClassificationLoss(self.labels, self.logits, config).item()
        return {"loss": loss, **all_metrics(self.logits, self.labels, config.problem_type)}

    def test_metrics(self, baseline: Scores, config: PreTrainedConfig) -> dict[str, Any]:
        """`metrics`, with the interval of the top-1 accuracy and its difference to a baseline, image by image."""
        metrics: dict[str, Any] = self.metrics(config)
        if "top1" in metrics:
            metrics["top1_interval"] = list(self.top1_interval())
            difference = paired_difference(self.correct, baseline.correct)
            metrics["top1_difference"] = [100 * value for value in difference]
            metrics["per_class"] = per_class_accuracy(self.logits, self.labels)
            if self.logits.shape[1] <= MAX_CONFUSION:
                metrics["confusion"] = confusion_matrix(self.logits, self.labels).tolist()
        return metrics

    def top1_interval(self) -> tuple[float, float]:
        """95% interval of the top-1 accuracy, in percent."""
        low, high = mean_interval(self.correct)
        return 100 * low, 100 * high


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
    return {name: Scores(joined[:, i], targets) for i, name in enumerate(names)}
