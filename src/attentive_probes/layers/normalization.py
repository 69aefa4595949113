"""Normalization of features before the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalization of features `(B, F)` whose batch statistics span all processes, on any device.

    Same function and state as `torch.nn.BatchNorm1d`; statistics are computed in float32. PyTorch's own synchronized
    version refuses CPU tensors.

    Args:
        num_features: Feature width F.
        affine: Whether to learn a scale and a shift.
        eps: Added to the variance.
        momentum: Weight of the newest batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, affine: bool = False, eps: float = 1e-6, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def reset_parameters(self) -> None:
        """Forget the running statistics and reset the affine map."""
        nn.init.zeros_(self.running_mean)
        nn.init.ones_(self.running_var)
        nn.init.zeros_(self.num_batches_tracked)
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Normalize features `(B, F)`.

        Raises:
            ValueError: If a training batch holds a single image, over all processes.
        """
        return normalize_together([self], [features])[0]

    def normalize(self, values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Values `(B, F)` less a mean, by a deviation, through the affine map if there is one."""
        normalized = (values - mean) * (variance + self.eps).rsqrt()
        if self.weight is not None and self.bias is not None:
            normalized = normalized * self.weight + self.bias
        return normalized

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, count: int | Tensor) -> None:
        """Move the running statistics towards the moments `(F,)` of a batch of `count` rows over all processes."""
        rest = count - 1 if isinstance(count, int) else (count - 1).clamp(min=1)
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((variance * count / rest).to(self.running_var.dtype), self.momentum)

    @torch.no_grad()
    def settle(self) -> None:
        """Take what the running statistics started from, mean 0 and variance 1, out of them.

        After t batches it has the weight `(1 - momentum) ** t`, a third after ten: short runs would be evaluated with
        statistics that are none of their features. Nothing changes before the first batch.
        """
        weight = (1 - self.momentum) ** int(self.num_batches_tracked)
        if weight < 1:
            self.running_mean /= 1 - weight
            self.running_var.sub_(weight).div_(1 - weight).clamp_(min=0)


def normalize_together(norms: Sequence[nn.Module], features: Sequence[Tensor]) -> list[Tensor]:
    """Apply several norms, each to its own features `(B, F)`; batch statistics cross the processes in one exchange.

    Args:
        norms: `BatchNorm`s and any other modules.
        features: What each is applied to, all of the same images.

    Raises:
        ValueError: If batch statistics would be those of a single image, over all processes.
    """
    values = [each.to(torch.promote_types(each.dtype, torch.float32)) for each in features]
    learning = [i for i, norm in enumerate(norms) if isinstance(norm, BatchNorm) and norm.training]
    moments = [_moments(values[i]) for i in learning]
    count = len(features[learning[0]]) if learning else 0
    joint = dict(zip(learning, join_moments(moments, count), strict=True))
    found = []
    for i, norm in enumerate(norms):
        if not isinstance(norm, BatchNorm):
            found.append(norm(features[i]))
            continue
        mean, variance = norm.running_mean, norm.running_var
        if i in joint:
            mean, variance, total = joint[i]
            norm.track(mean, variance, total)
        found.append(norm.normalize(values[i], mean, variance).to(features[i].dtype))
    return found


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(F,)`; zeros, with a history, of no rows."""
    if len(values) == 0:
        return values.sum(0), values.sum(0)
    mean = values.mean(0)
    return mean, (values - mean).square().mean(0)


def join_moments(moments: Sequence[tuple[Tensor, Tensor]], count: int) -> list[tuple[Tensor, Tensor, int | Tensor]]:
    """Moments over the rows of all processes from those of the `count` rows of this one, all in one exchange.

    Args:
        moments: Means and biased variances, `(F,)` each, of sizes that may differ.
        count: Number of rows behind each of them, here; a process may have none.

    Returns:
        Mean, biased variance and number of rows over all processes, for each.

    Raises:
        ValueError: If there is a single row.
    """
    if not moments:
        return []
    if not is_distributed():
        if count < 2:
            raise ValueError("Batch normalization cannot train on a batch of one image; use a larger batch_size.")
        return [(mean, variance, count) for mean, variance in moments]
    sizes = [len(mean) for mean, _ in moments]
    flat = torch.cat([part for pair in zip(*moments, strict=True) for part in pair])
    everyone = _Gather.apply(torch.cat([flat, flat.new_tensor([float(count)])]))  # (processes, 2 F + 1)
    means, variances, counts = everyone.split([sum(sizes), sum(sizes), 1], dim=1)
    total = counts.sum()
    shares = counts / total
    mean = (means * shares).sum(0)
    variance = ((variances + (means - mean).square()) * shares).sum(0)
    return [(*pair, total.detach()) for pair in zip(mean.split(sizes), variance.split(sizes), strict=True)]


def is_distributed() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    """The vectors `(F,)` of all processes as rows; the gradient of a vector is the sum of all processes' for it."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor) -> Tensor:
        rows = [torch.empty_like(vector) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, vector.contiguous())
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def build_feature_norm(name: str, num_features: int) -> nn.Module:
    """The normalization `name` of `HeadConfig.feature_norm` for features of width F."""
    builders = {
        "batchnorm": lambda: BatchNorm(num_features),
        "batchnorm_affine": lambda: BatchNorm(num_features, affine=True, eps=1e-5),
        "layernorm": lambda: nn.LayerNorm(num_features),
        "none": nn.Identity,
    }
    return builders[name]()
