"""Scores of every head on every image of a split, each image once, over any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from attentive_probes.data.batches import inputs_of
from attentive_probes.data.labels import IGNORED
from attentive_probes.evaluation.metrics import all_metrics, confusion_matrix, per_class_accuracy, top_k_correct
from attentive_probes.evaluation.statistics import mean_interval, paired_difference

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


def counted(labels: Tensor) -> Tensor:
    """Which rows `(B,)` of targets count: not those of images that could not be read (`LabelEncoder.ignored`)."""
    if not labels.is_floating_point():
        return labels != IGNORED
    return ~labels.isnan().reshape(len(labels), -1).any(1)


@torch.no_grad()
def score_split(
    model: nn.Module, batches: Iterable[dict[str, Any]], accelerator: Accelerator, tick: Callable[[int], None]
) -> dict[str, Scores]:
    """Run all heads over a split in evaluation mode; every process gets all scores.

    Args:
        model: A (wrapped) `ProbeSweep`.
        batches: A loader prepared by `accelerator`, whose padding of the last batch is dropped.
        accelerator: Where to run.
        tick: Called with the number of images of each batch.

    Returns:
        Name of the head -> its scores. Memory is `images x heads x classes` floats.

    Raises:
        ValueError: If the split is empty.
    """
    model.eval()
    logits: dict[str, list[Tensor]] = {}
    labels: list[Tensor] = []
    for batch in batches:
        with accelerator.autocast():
            outputs = model(**inputs_of(batch))
        gathered = accelerator.gather_for_metrics(
            {"labels": batch["labels"], "logits": {name: output.logits for name, output in outputs.items()}}
        )
        counts = counted(gathered["labels"])
        labels.append(gathered["labels"][counts].cpu())
        for name, values in gathered["logits"].items():
            logits.setdefault(name, []).append(values[counts].float().cpu())
        tick(len(labels[-1]))
    if not any(map(len, labels)):
        raise ValueError("There is no image to evaluate on.")
    return {name: Scores(torch.cat(values), torch.cat(labels)) for name, values in logits.items()}
