"""Losses of a step, as sums over images, so that parts and processes add up to what the whole batch would give."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.layers.normalization import is_distributed


def summed_loss(logits: Tensor, labels: Tensor, problem_type: str, class_weights: Tensor | None = None) -> Tensor:
    """Sum over images of their losses: cross-entropy, or the mean over labels or targets of their losses.

    Args:
        logits: `(B, C)`; B may be 0.
        labels: Class ids `(B,)`, or rows `(B, C)` (`(B,)` for one target).
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        class_weights: `(C,)` weights of the images of each class.
    """
    if problem_type == "single_label_classification":
        return F.cross_entropy(logits, labels, class_weights, reduction="sum")
    targets = labels.reshape(logits.shape).to(logits.dtype)
    if problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / logits.shape[1]
    return F.mse_loss(logits, targets, reduction="sum") / logits.shape[1]


def total_weight(labels: list[Tensor], class_weights: Tensor | None = None) -> float | Tensor:
    """What `summed_loss` is divided by: number or summed class weight of the images of a step, over all processes.

    Raises:
        ValueError: If a single process has no image.
    """
    if not is_distributed():
        if not any(map(len, labels)):
            raise ValueError("None of the images of a training batch can be read.")
        if class_weights is None:
            return sum(map(len, labels))
    joined = torch.cat(labels)
    weights = joined.new_ones(len(joined), dtype=torch.float32) if class_weights is None else class_weights[joined]
    total = weights.sum()
    if is_distributed():
        dist.all_reduce(total)
    return total.clamp(min=torch.finfo(total.dtype).tiny)
