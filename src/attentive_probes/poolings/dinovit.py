"""One more transformer block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.multihead import Mlp, check_heads
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class DinoVitPooling(Pooling):
    """A pre-norm transformer block over the tokens, then their mean.

    The block of "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, arXiv 2304.07193, as a probe
    in the form the EP paper studies: no LayerScale, no final norm. Nothing folds: every token is mapped.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.
        mlp_ratio: Hidden width of the MLP over D.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`: what the tokens receive on average; rows sum
    to 1. `block_attention` gives `(B, h, T, T)`.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2304.07193"
    learning_rate = 0.001

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 8, mlp_ratio: float = 4.0):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out_map = nn.Linear(width, width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        attention, values = self._attend(tokens)
        mixed = (attention.to(values.dtype) @ values).transpose(1, 2).flatten(2)
        tokens = tokens + self.out_map(mixed)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return Pooled(tokens.mean(1), attention.mean(2))

    def block_attention(self, tokens: Tensor) -> Tensor:
        """The attention of every token on every token, `(B, h, T, T)`, rows sum to 1."""
        return self._attend(tokens)[0]

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        width, tokens = self.num_features, self.num_tokens
        total = tokens * (4 * width * width + self.mlp.multiply_adds()) + 2 * tokens * tokens * width
        return MultiplyAdds(total, total)

    def _attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.num_attention_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # each (B, h, T, d)
        logits = queries @ keys.mT * queries.shape[-1] ** -0.5
        return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)), values
