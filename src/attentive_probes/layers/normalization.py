"""Normalization of features before the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
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
        return normalize_together([[self]], [features[None]])[0][0]

    def track(self, mean: Tensor, variance: Tensor, count: int | Tensor) -> None:
        """Move the running statistics towards the moments `(F,)` of a batch of `count` rows over all processes."""
        _track([self], mean[None], _unbiased(variance, count)[None])

    @torch.no_grad()
    def settle(self) -> None:
        """Take what the running statistics started from, mean 0 and variance 1, out of them.

        After t batches it has the weight `(1 - momentum) ** t`, a third after ten: short runs would be evaluated with
        the initial statistics rather than those of their features. Nothing changes before the first batch.
        """
        weight = (1 - self.momentum) ** int(self.num_batches_tracked)
        if weight < 1:
            self.running_mean /= 1 - weight
            self.running_var.sub_(weight).div_(1 - weight).clamp_(min=0)


def are_alike(norm: nn.Module) -> tuple[Any, ...]:
    """What norms that `normalize_together` may take together have in common, beside their mode."""
    settings = (getattr(norm, name, None) for name in ("eps", "momentum", "normalized_shape"))
    return (type(norm), getattr(norm, "weight", None) is not None, *settings)


def normalize_together(norms: Sequence[Sequence[nn.Module]], features: Sequence[Tensor]) -> list[Tensor]:
    """Apply many norms, those that are alike at a time; batch statistics of all cross the processes in one exchange.

    Args:
        norms: Of each group, G modules for which `are_alike` is the same.
        features: Of each group, what its modules are applied to, `(G, B, F)`; `(1, B, F)` if that is the same for all.

    Returns:
        `(G, B, F)` of each group; `(1, B, F)` if that is the same for all.

    Raises:
        ValueError: If batch statistics would be those of a single image, over all processes.
    """
    learning = [i for i, group in enumerate(norms) if isinstance(group[0], BatchNorm) and group[0].training]
    if learning and not is_distributed():
        _require_two(features[learning[0]].shape[1])
    joint = _over_processes({i: _exact(features[i]) for i in learning}) if is_distributed() else {}
    found = []
    for i, (group, values) in enumerate(zip(norms, features, strict=True)):
        if not isinstance(group[0], BatchNorm):
            found.append(_apply(group, values))
        elif i in joint:
            found.append(_by_moments(group, values, *joint[i]))
        else:
            found.append(_by_batch_norm(group, values))
    return found


def _apply(group: Sequence[nn.Module], features: Tensor) -> Tensor:
    """Apply norms without batch statistics to features `(G, B, F)`, or `(1, B, F)`."""
    if len(group) == 1 or isinstance(group[0], nn.Identity):
        return group[0](features)
    each = features.expand(len(group), -1, -1).unbind()
    return torch.stack([norm(part) for norm, part in zip(group, each, strict=True)])


def _by_batch_norm(group: Sequence[Any], features: Tensor) -> Tensor:
    """Normalize by the moments of this process's batch, which are tracked, or by the running ones: one fused kernel."""
    training, is_affine, eps = group[0].training, group[0].weight is not None, group[0].eps
    values = _exact(features)
    if is_affine or not training:  # else what is the same for all stays one
        values = values.expand(len(group), -1, -1)
    groups, count, width = values.shape
    rows = values.transpose(0, 1).reshape(count, groups * width)
    weight, bias = (_stack(group, name, rows).flatten() if is_affine else None for name in ("weight", "bias"))
    if training:
        mean, variance = rows.new_zeros(2, rows.shape[1])  # with a momentum of one, those of the batch
        rows = F.batch_norm(rows, mean, variance, weight, bias, True, 1.0, eps)
        _track(group, mean.view(groups, width), variance.view(groups, width))
    else:
        mean, variance = (_stack(group, name, rows).flatten() for name in ("running_mean", "running_var"))
        rows = F.batch_norm(rows, mean, variance, weight, bias, False, 0.0, eps)
    return rows.view(count, groups, width).transpose(0, 1).to(features.dtype)


def _by_moments(group: Sequence[Any], features: Tensor, mean: Tensor, variance: Tensor, count: int | Tensor) -> Tensor:
    """Normalize by moments `(G, F)`, or `(1, F)`, over all processes, which are tracked."""
    _track(group, mean, _unbiased(variance, count))
    scaled = (_exact(features) - mean[:, None]) * (variance[:, None] + group[0].eps).rsqrt()
    if group[0].weight is not None:
        scaled = scaled * _stack(group, "weight", scaled)[:, None] + _stack(group, "bias", scaled)[:, None]
    return scaled.to(features.dtype)


def _exact(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _stack(group: Sequence[nn.Module], name: str, like: Tensor) -> Tensor:
    return torch.stack([getattr(norm, name) for norm in group]).to(like.dtype)


@torch.no_grad()
def _track(group: Sequence[Any], mean: Tensor, variance: Tensor) -> None:
    """Move running statistics towards mean and unbiased variance `(G, F)`, or `(1, F)`."""
    torch._foreach_add_([norm.num_batches_tracked for norm in group], 1)
    for name, new in (("running_mean", mean), ("running_var", variance)):
        running = [getattr(norm, name) for norm in group]
        each = new.detach().to(running[0].dtype).expand(len(group), -1)
        torch._foreach_lerp_(running, list(each.unbind()), group[0].momentum)


def _unbiased(variance: Tensor, count: int | Tensor) -> Tensor:
    return variance * count / (count - 1 if isinstance(count, int) else (count - 1).clamp(min=1))


def _over_processes(values: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor, int | Tensor]]:
    """Mean and biased variance `(G, F)` over all processes, and number of rows, of features `(G, B, F)` by place."""
    moments = [_moments(each) for each in values.values()]
    count = next(iter(values.values())).shape[1] if values else 0
    joint = join_moments([(mean.flatten(), variance.flatten()) for mean, variance in moments], count)
    return {
        i: (mean.view(len(each), -1), variance.view(len(each), -1), total)
        for (i, each), (mean, variance, total) in zip(values.items(), joint, strict=True)
    }


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(G, F)` of `(G, B, F)`; zeros, with a history, of no rows."""
    if values.shape[1] == 0:
        return values.sum(1), values.sum(1)
    mean = values.mean(1)
    return mean, (values - mean[:, None]).square().mean(1)


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
        _require_two(count)
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


def _require_two(count: int) -> None:
    if count < 2:
        raise ValueError("Batch normalization cannot train on a batch of one image; use a larger batch_size.")


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
