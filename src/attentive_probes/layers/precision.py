"""Which precision a product runs in: what a textbook head norms before its products, a folded one must not round."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of a tensor."""
    return torch.autocast(like.device.type, enabled=False) if in_autocast(like) else nullcontext()


def in_autocast(like: Tensor) -> bool:
    """Whether autocast is on for the device of a tensor."""
    device_type = like.device.type
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def exact_type(tensor: Tensor) -> torch.dtype:
    """The type of a tensor, float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)


def multiplies_in_half(tokens: Tensor) -> bool:
    """Whether products with tokens run in bfloat16: where they or autocast are in it, on an accelerator.

    CPUs multiply faster in float32, most of them by far, and float16 overflows.
    """
    device_type = tokens.device.type
    if device_type == "cpu":
        return False
    if in_autocast(tokens):
        return torch.get_autocast_dtype(device_type) == torch.bfloat16
    return tokens.dtype == torch.bfloat16
