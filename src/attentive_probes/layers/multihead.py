"""What multi-head attention with constant queries folds into: maps of queries and of pooled tokens, per head.

Head i owns rows `[i d, (i + 1) d)` of its key and value maps. A key bias adds the same number to all logits of a query
and cancels in the softmax: there is none here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.attend_frozen import MapSlices
from attentive_probes.layers.precision import exact_type, full_precision
from attentive_probes.layers.queries import MultiplyAdds, Queries


def check_heads(width: int, num_attention_heads: int) -> None:
    """Check that attention heads divide a width.

    Raises:
        ValueError: If they do not.
    """
    if num_attention_heads < 1 or width % num_attention_heads:
        valid = [h for h in range(1, min(width, 128) + 1) if width % h == 0]
        raise ValueError(
            f"num_attention_heads={num_attention_heads} does not divide the width {width}; choose one of {valid}."
        )


def fold_keys(queries: Tensor, key_map: nn.Linear, num_attention_heads: int) -> Tensor:
    """Move the key map onto mapped queries `(..., A)`: vectors `(..., h, D)` in token space, scaled by `d ** -0.5`."""
    exact = exact_type(queries)
    per_head = queries.to(exact).unflatten(-1, (num_attention_heads, -1))  # (..., h, d)
    rows = key_map.weight.to(exact).unflatten(0, (num_attention_heads, -1))  # (h, d, D)
    with full_precision(queries):
        return torch.einsum("...hd,hdw->...hw", per_head, rows) * per_head.shape[-1] ** -0.5


def map_values(pooled: Tensor, value_map: nn.Linear) -> Tensor:
    """Apply the value map per head to pooled tokens `(B, h, D)` whose weights sum to 1: `(B, A)`."""
    rows = value_map.weight.to(pooled.dtype).unflatten(0, (pooled.shape[1], -1))  # (h, d, D)
    with full_precision(pooled):
        values = map_slices(pooled, rows).flatten(1)
    return (values if value_map.bias is None else values + value_map.bias).to(value_map.weight.dtype)


def map_slices(pooled: Tensor, rows: Tensor) -> Tensor:
    """Pooled tokens `(B, h, D)`, each by its own rows `(h, d, D)`: `(B, h, d)`."""
    if torch.compiler.is_compiling():
        return torch.einsum("bhw,hdw->bhd", pooled, rows)
    return MapSlices.apply(pooled, rows)


def norm_queries(vectors: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Move a LayerNorm on tokens onto vectors `(..., D)`, up to its token scale: centring them centres the tokens.

    What is dropped, `<vector, norm.bias>`, is the same for all tokens.
    """
    weighted = vectors * norm.weight
    return weighted - weighted.mean(-1, keepdim=True)


def norm_pooled(pooled: Tensor, norm: nn.LayerNorm, total: Tensor | None = None) -> Tensor:
    """Finish a LayerNorm on tokens after pooling: `pooled` `(B, M, D)` holds sums of tokens times their token scale.

    Args:
        pooled: `(B, M, D)`.
        norm: The LayerNorm.
        total: `(B, M)`, the sum of the weights, where it is not 1.
    """
    bias = norm.bias if total is None else norm.bias * total[..., None].to(pooled.dtype)
    return torch.addcmul(bias, pooled - pooled.mean(-1, keepdim=True), norm.weight)


def map_normed_values(
    pooled: Tensor, attention: Tensor, queries: Queries, norm: nn.LayerNorm, value_map: nn.Linear
) -> Tensor:
    """`norm_pooled`, then `map_values`, without a pass over the pooled tokens `(B, h, D)` but the product itself.

    The gain of the LayerNorm moves into the value map, and the mean of a pooled token follows from those of the tokens.
    """
    assert queries.token_scale is not None and queries.token_mean is not None
    heads = (pooled.shape[1], -1)
    weight, gain, offset = (part.to(pooled.dtype) for part in (value_map.weight, norm.weight, norm.bias))
    with full_precision(pooled):
        mean = torch.bmm(attention, (queries.token_scale * queries.token_mean)[..., None])  # (B, h, 1)
        gains, offsets = (weight @ gain).unflatten(0, heads), (weight @ offset).unflatten(0, heads)  # (h, d)
        values = map_slices(pooled, (weight * gain).unflatten(0, heads))
    values = values - mean.to(pooled.dtype) * gains + attention.sum(-1, keepdim=True).to(pooled.dtype) * offsets
    values = values.flatten(1) if value_map.bias is None else values.flatten(1) + value_map.bias
    return values.to(value_map.weight.dtype)


class Mlp(nn.Module):
    """Two linear layers with GELU between, `(B, D)` -> `(B, D)`."""

    def __init__(self, width: int, ratio: float):
        super().__init__()
        self.fc1 = nn.Linear(width, round(width * ratio))
        self.fc2 = nn.Linear(round(width * ratio), width)

    def forward(self, features: Tensor) -> Tensor:
        """Map features `(B, D)`."""
        return self.fc2(nn.functional.gelu(self.fc1(features)))

    def multiply_adds(self) -> int:
        """Multiply-adds for one vector."""
        return 2 * self.fc1.weight.numel()


def block_multiply_adds(width: int, num_tokens: int, num_attention_heads: int, mlp: Mlp) -> MultiplyAdds:
    """Of a block with one query: cross-attention with query and output maps, then an MLP."""
    after = 2 * width * width + mlp.multiply_adds()
    return MultiplyAdds(
        2 * num_tokens * width * (width + 1) + after, 2 * num_tokens * num_attention_heads * width + after
    )
