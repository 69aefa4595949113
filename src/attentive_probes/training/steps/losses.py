"""Losses of a step, as sums over images, so that parts and processes add up to what the whole batch would give."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from attentive_probes.layers.normalization import is_distributed
from attentive_probes.problems import find_problem


def summed_losses(
    logits: Sequence[Tensor], labels: Tensor, problem_type: str, class_weights: Tensor | None = None
) -> Tensor:
    """Sums `(H,)` over images of the losses of heads: cross-entropy, or the mean over labels or targets of theirs.

    Args:
        logits: `(B, C)` of each of H heads; B may be 0.
        labels: Class ids `(B,)`, or rows `(B, C)` (`(B,)` for one target).
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        class_weights: `(C,)` weights of the images of each class.
    """
    joint = torch.stack(list(logits))  # (H, B, C)
    return find_problem(problem_type).losses(joint, labels, class_weights).sum(1)


def total_weight(labels: list[Tensor], class_weights: Tensor | None = None) -> float | Tensor:
    """What `summed_losses` is divided by: number or summed class weight of the images of a step, over all processes.

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
