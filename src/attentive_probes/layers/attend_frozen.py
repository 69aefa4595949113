"""The primitive for tokens without a gradient on a CPU: a few images at a time, which stay in its cache.

Forward and backward read the tokens once each, where products over the whole batch read them twice each, and the
gradient of the queries is added up in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED_NUMBERS = 2**19  # tokens, weights and pooled tokens that a core keeps close: 2 MiB of float32


class AttendFrozen(torch.autograd.Function):
    """Pooled tokens `(B, M, D)` and attention `(B, M, T)` of tokens `(B, T, D)` by queries `(M, D)`.

    The formula of `attend`, with a token scale `(B, T)` or none. Tokens and scale get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, queries: Tensor, token_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool."""
        (batch, length, width), count = tokens.shape, len(queries)
        pooled, attention = tokens.new_empty(batch, count, width), tokens.new_empty(batch, count, length)
        for part in _parts(tokens, count):
            x, weights = tokens[part], attention[part]
            torch.bmm(queries.expand(len(x), -1, -1), x.mT, out=weights)
            if token_scale is not None:
                weights.mul_(token_scale[part, None])
            torch.softmax(weights, -1, out=weights)
            torch.bmm(weights if token_scale is None else weights * token_scale[part, None], x, out=pooled[part])
        ctx.save_for_backward(tokens, attention, token_scale)
        ctx.set_materialize_grads(False)
        return pooled, attention

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_pooled: Tensor | None, to_attention: Tensor | None) -> tuple[None, Tensor | None, None]:
        """The gradient of the queries from those of both results."""
        if to_pooled is None and to_attention is None:
            return None, None, None
        tokens, attention, token_scale = ctx.saved_tensors
        to_queries = tokens.new_zeros(attention.shape[1], tokens.shape[2])
        for part in _parts(tokens, attention.shape[1]):
            x, weights, slope = tokens[part], attention[part], None
            if to_pooled is not None:
                slope = torch.bmm(to_pooled[part], x.mT)
                slope = slope if token_scale is None else slope.mul_(token_scale[part, None])
            if to_attention is not None:
                slope = to_attention[part] if slope is None else slope.add_(to_attention[part])
            slope = (slope - torch.linalg.vecdot(weights, slope)[..., None]).mul_(weights)
            slope = slope if token_scale is None else slope.mul_(token_scale[part, None])
            to_queries.addbmm_(slope, x)
        return None, to_queries, None


class MapSlices(torch.autograd.Function):
    """Pooled tokens `(B, h, D)`, each by its own rows `(h, d, D)`: `(B, h, d)`. The gradient of rows needs no copy."""

    @staticmethod
    def forward(ctx: Any, pooled: Tensor, rows: Tensor) -> Tensor:
        """Map."""
        ctx.save_for_backward(pooled, rows)
        return torch.bmm(rows, pooled.permute(1, 2, 0)).permute(2, 0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_values: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both."""
        pooled, rows = ctx.saved_tensors
        slopes = to_values.permute(1, 2, 0).contiguous()  # (h, d, B)
        return torch.bmm(slopes.mT, rows).transpose(0, 1), torch.bmm(slopes, pooled.transpose(0, 1))


def _parts(tokens: Tensor, count: int) -> list[slice]:
    batch, length, width = tokens.shape
    size = max(1, CACHED_NUMBERS * torch.get_num_threads() // (length * width + count * (length + width)))
    return [slice(first, first + size) for first in range(0, batch, size)]
