"""A pre-norm transformer block over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.layers.multihead import Mlp, check_heads


class SelfAttentionBlock(nn.Module):
    """Self-attention and an MLP, each behind a LayerNorm and beside a residual: `(B, T, D)` -> `(B, T, D)`.

    Args:
        width: Token width D.
        num_attention_heads: Number of attention heads h.
        mlp_ratio: Hidden width of the MLP over D.
        qkv_bias: Whether queries, keys and values have a bias.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    def __init__(self, width: int, num_attention_heads: int, mlp_ratio: float, qkv_bias: bool = True):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out_map = nn.Linear(width, width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens `(B, T, D)`."""
        return self.finish(tokens, F.scaled_dot_product_attention(*self.split(tokens)))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `(B, h, T, d)`."""
        projected = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.num_attention_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def finish(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Tokens after the block, given the mixed values `(B, h, T, d)`."""
        tokens = tokens + self.out_map(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))

    def with_attention(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens after the block, and its attention; queries, keys and values are mapped once for both."""
        queries, keys, values = self.split(tokens)
        attention = _weights(queries, keys)
        return self.finish(tokens, attention.to(values.dtype) @ values), attention

    def attention(self, tokens: Tensor) -> Tensor:
        """The attention of every token on every token, `(B, h, T, T)`, rows sum to 1."""
        queries, keys, _ = self.split(tokens)
        return _weights(queries, keys)

    def block_multiply_adds(self, num_tokens: int) -> int:
        """Multiply-adds per image."""
        width = self.qkv.in_features
        return num_tokens * (4 * width * width + self.mlp.multiply_adds()) + 2 * num_tokens * num_tokens * width


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention `(B, h, T, T)` of queries and keys `(B, h, T, d)`, in float32 at least."""
    logits = queries @ keys.mT * queries.shape[-1] ** -0.5
    return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
