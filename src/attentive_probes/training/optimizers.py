"""Optimizers with one parameter group per head, and their schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_cosine_schedule_with_warmup

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": lambda groups, momentum: torch.optim.AdamW(groups),
    "sgd": lambda groups, momentum: torch.optim.SGD(groups, momentum=momentum),
}


@dataclass(frozen=True)
class HeadRates:
    """Learning rate at its peak and weight decay of one head."""

    learning_rate: float
    weight_decay: float


def build_optimizer(
    name: str, heads: Mapping[str, nn.Module], rates: Mapping[str, HeadRates], momentum: float
) -> Optimizer:
    """An optimizer over the heads only, each with its own learning rate and weight decay."""
    groups = [
        {"params": list(head.parameters()), "lr": rates[key].learning_rate, "weight_decay": rates[key].weight_decay}
        for key, head in heads.items()
    ]
    return OPTIMIZERS[name](groups, momentum)


def build_schedule(optimizer: Optimizer, num_steps: int, warmup_ratio: float) -> LRScheduler:
    """Linear warm-up over `warmup_ratio` of the steps, then a half-cosine to zero."""
    return get_cosine_schedule_with_warmup(optimizer, round(warmup_ratio * num_steps), num_steps)
