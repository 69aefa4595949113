"""Normalization of features before the classifier."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


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
        values = features.to(torch.promote_types(features.dtype, torch.float32))
        mean, variance = self.running_mean, self.running_var
        if self.training:
            local = values.mean(0)
            mean, variance = self.update(local, (values - local).square().mean(0), values.shape[0])
        normalized = (values - mean) * (variance + self.eps).rsqrt()
        if self.weight is not None and self.bias is not None:
            normalized = normalized * self.weight + self.bias
        return normalized.to(features.dtype)

    def update(self, mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Join this process's moments with those of the others, and update the running statistics.

        Args:
            mean: `(F,)`, over `count` rows.
            variance: `(F,)`, biased.
            count: Number of rows of this process.

        Returns:
            Mean and biased variance over the rows of all processes.

        Raises:
            ValueError: If there is a single row over all processes.
        """
        total: Tensor | int = count
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            total = all_reduce(torch.tensor(float(count), device=mean.device))
            share = count / total
            joint = all_reduce(mean * share)
            variance = all_reduce((variance + (mean - joint).square()) * share)
            mean = joint
        elif count < 2:
            raise ValueError("Batch normalization cannot train on a batch of one image; use a larger batch_size.")
        with torch.no_grad():
            unbiased = variance * total / (total - 1)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return mean, variance


def build_feature_norm(name: str, num_features: int) -> nn.Module:
    """The normalization `name` of `HeadConfig.feature_norm` for features of width F."""
    builders = {
        "batchnorm": lambda: BatchNorm(num_features),
        "batchnorm_affine": lambda: BatchNorm(num_features, affine=True, eps=1e-5),
        "layernorm": lambda: nn.LayerNorm(num_features),
        "none": nn.Identity,
    }
    return builders[name]()
