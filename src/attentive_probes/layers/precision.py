"""Which precision a product runs in: what a textbook head norms before its products, a folded one must not round."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# Releases of PyTorch that do not tell count as without.
CAPABILITIES: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
CPU_HAS_BFLOAT16 = any(CAPABILITIES.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


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
    """Whether products with tokens run in bfloat16: where they or autocast are in it, and the device has it.

    A CPU without it multiplies several times faster in float32; float16 overflows.
    """
    dtype = torch.get_autocast_dtype(tokens.device.type) if in_autocast(tokens) else tokens.dtype
    return dtype == torch.bfloat16 and (tokens.device.type != "cpu" or CPU_HAS_BFLOAT16)
