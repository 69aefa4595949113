"""Optimizers with one parameter group per learning rate and weight decay, and their schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.poolings import Pooling
from attentive_probes.training.steps.lars import LARS

# Fused: with many small heads, one kernel per group instead of one per operation and tensor.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": lambda groups, momentum: torch.optim.AdamW(groups, fused=True),
    "sgd": lambda groups, momentum: torch.optim.SGD(groups, momentum=momentum, fused=True),
    "lars": lambda groups, momentum: LARS(groups, momentum=momentum),
}


NORMS = (nn.LayerNorm, BatchNorm)
UNDECAYED = ("bias", "gamma", "scale", "query")


@dataclass(frozen=True)
class HeadRates:
    """Learning rate at its peak and weight decay of one head; its queries may have a rate of their own."""

    learning_rate: float
    weight_decay: float
    query_learning_rate: float | None = None

    def of(self, seeks: bool, decays: bool) -> HeadRates:
        """Those of a part of the head: what says where to look or not, what weight decay shrinks or not."""
        rate = self.query_learning_rate if seeks and self.query_learning_rate is not None else self.learning_rate
        return HeadRates(rate, self.weight_decay if decays else 0.0)


def build_optimizer(
    name: str,
    heads: Mapping[str, nn.Module],
    rates: Mapping[str, HeadRates],
    momentum: float,
    adapter: Sequence[nn.Parameter] = (),
    adapter_rates: HeadRates | None = None,
) -> Optimizer:
    """An optimizer over heads and adapter only, each with its own learning rate and weight decay.

    Weight decay leaves out biases, norms, learned scales and queries; see `is_decayed`. What says where to look has the
    rate of queries; see `Pooling.seeking_parameters`.
    """
    by_rates: dict[HeadRates, list[nn.Parameter]] = {}
    for key, head in heads.items():
        pooling = getattr(head, "pooling", None)
        seeking = set(pooling.seeking_parameters().values()) if isinstance(pooling, Pooling) else set()
        for decays, parameters in zip((True, False), split_parameters(head), strict=True):
            for parameter in parameters:
                by_rates.setdefault(rates[key].of(parameter in seeking, decays), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": rates.learning_rate, "weight_decay": rates.weight_decay}
        for rates, parameters in by_rates.items()
        if parameters
    ]
    if adapter:
        assert adapter_rates is not None
        groups.append(
            {"params": adapter, "lr": adapter_rates.learning_rate, "weight_decay": adapter_rates.weight_decay}
        )
    return OPTIMIZERS[name](groups, momentum)


def split_parameters(head: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of a head that weight decay shrinks, and those that it leaves alone."""
    found: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for module in head.modules():
        for name, parameter in module.named_parameters(recurse=False):
            found[0 if is_decayed(module, name) else 1].append(parameter)
    return found


def is_decayed(module: nn.Module, name: str) -> bool:
    """Whether weight decay shrinks a parameter of a module: maps, but no bias, norm, scale or query.

    The rule of transformers' `Trainer`, less queries: without decay they were better by 0.2 to 0.3 points at a decay of
    1, and no different at 0.1 (docs/protocol.md).
    """
    return not isinstance(module, NORMS) and not any(part in name for part in UNDECAYED)


def build_schedule(
    optimizer: Optimizer, num_steps: int, warmup_ratio: float, min_learning_rate: float = 0.0
) -> LRScheduler:
    """Linear warm-up from zero over `warmup_ratio` of the steps, then a half-cosine down to `min_learning_rate`."""
    num_warmup_steps = round(warmup_ratio * num_steps)

    def share(step: int, floor: float) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        progress = min(1.0, (step - num_warmup_steps) / max(1.0, num_steps - num_warmup_steps))
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    floors = [min_learning_rate / group["lr"] if group["lr"] else 0.0 for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(share, floor=floor) for floor in floors])
