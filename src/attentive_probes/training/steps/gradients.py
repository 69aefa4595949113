"""The gradients of all heads in one buffer: one exchange between processes, a norm and a verdict per head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attentive_probes.layers.normalization import is_distributed


class HeadGradients:
    """Where the gradients of some heads are added up, so that no head can touch another.

    Args:
        parameters: Name of the head -> its parameters, all of one type on one device. Their `grad` becomes a view.

    Attributes:
        losses: `(H,)`, where the losses of a step are added up as well.
        is_alive: `(H,)`, whether loss and gradient of each head have been finite so far. A head that diverged gets no
            gradient any more.
        diverged_at: `(H,)`, the step (from 1) at which that ended; 0 for heads that are alive.
    """

    def __init__(self, parameters: Mapping[str, Sequence[nn.Parameter]]):
        self.names = list(parameters)
        everything = [p for group in parameters.values() for p in group]
        device, count = everything[0].device, len(self.names)
        self._buffer = torch.zeros(count + sum(p.numel() for p in everything), device=device)
        self.losses, *parts = self._buffer.split([count, *(p.numel() for p in everything)])
        for parameter, part in zip(everything, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        sizes = [sum(p.numel() for p in group) for group in parameters.values()]
        self._of_heads = self._buffer[count:].split(sizes)
        self._places: dict[tuple[str, ...], Tensor] = {}
        self.is_alive = torch.ones(count, dtype=torch.bool, device=device)
        self.diverged_at = torch.zeros(count, dtype=torch.long, device=device)
        self._are_alive = True  # as far as was asked

    def zero(self) -> None:
        """Start a step."""
        self._buffer.zero_()

    def add_losses(self, names: Sequence[str], losses: Tensor) -> None:
        """Add losses `(H,)` of some heads."""
        key = tuple(names)
        if key not in self._places:
            places = [self.names.index(name) for name in names]
            self._places[key] = torch.tensor(places, device=self.losses.device)
        self.losses.index_add_(0, self._places[key], losses)

    def add_up(self) -> None:
        """Replace gradients and losses by their sums over all processes."""
        if is_distributed():
            dist.all_reduce(self._buffer)

    def settle(self, step: int, max_norm: float | None, is_scaled: bool = False) -> None:
        """Clip each head by itself, and clear the gradient of every head that diverged, now or before.

        A head diverges when its loss, or the norm of its gradient where that is clipped, is no finite number. Nothing
        here waits for a GPU.

        Args:
            step: Its number, from 1.
            max_norm: Largest norm of the gradient of a head; `None` does not clip.
            is_scaled: Whether gradients may overflow because a scaler is looking for its scale; the loss alone then
                tells whether a head diverged.
        """
        on_cpu = self.losses.device.type == "cpu"  # elsewhere, asking would wait for the device
        if on_cpu and max_norm is None and self._are_alive and math.isfinite(self.losses.sum()):
            return
        is_finite, norms = self.losses.isfinite(), None
        if max_norm is not None:
            norms = torch.stack(torch._foreach_norm(self._of_heads))
            is_finite = is_finite if is_scaled else is_finite & norms.isfinite()
        self.diverged_at.masked_fill_(self.is_alive & ~is_finite, step)
        self.is_alive &= is_finite
        if norms is not None and max_norm is not None:
            factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
            for gradient, factor in zip(self._of_heads, factors, strict=True):
                gradient.mul_(factor)
        self._are_alive = on_cpu and bool(self.is_alive.all())
        if self._are_alive:
            return
        for gradient, is_dead in zip(self._of_heads, ~self.is_alive, strict=True):
            gradient.masked_fill_(is_dead, 0.0)

    def restore(self, diverged: Mapping[str, int]) -> None:
        """Go on from the steps at which heads diverged in an epoch that was interrupted."""
        for place, name in enumerate(self.names):
            if name in diverged:
                self.diverged_at[place], self.is_alive[place], self._are_alive = diverged[name], False, False

    def diverged(self) -> dict[str, int]:
        """Name -> step at which a head diverged; this waits for the device."""
        steps = self.diverged_at.tolist()
        return {name: step for name, step in zip(self.names, steps, strict=True) if step}
