"""LARS as the published probing recipes use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling ("Large Batch Training of Convolutional Networks", arXiv 1708.03888).

    Momentum SGD in which the gradient of every tensor of two or more dimensions, weight decay included, is scaled to
    `trust_coefficient` times the norm of that tensor. Vectors and scalars (biases, norms) take a plain step without
    weight decay. There is no epsilon: a tensor or gradient of norm zero is not scaled.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        weight_decay: Weight decay.
        momentum: Momentum; the learning rate multiplies the buffer, not the gradient.
        trust_coefficient: Share of a tensor's norm that its scaled gradient has.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**defaults, "trust_coefficient": trust_coefficient})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]  # torch overloads it
        """Take one step; parameters without a gradient keep their buffer."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)
        return loss

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        gradients = [self._scaled_gradient(p, group) for p in parameters]
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])

    @staticmethod
    def _scaled_gradient(parameter: Tensor, group: dict[str, Any]) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        if parameter.ndim < 2:
            return gradient
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
        weight_norm, gradient_norm = parameter.norm(), gradient.norm()
        trust = group["trust_coefficient"] * weight_norm / gradient_norm
        return gradient * torch.where((weight_norm > 0) & (gradient_norm > 0), trust, 1.0)
