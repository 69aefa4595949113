"""One more transformer block."""

from __future__ import annotations

from torch import Tensor

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.layers.self_attention import SelfAttentionBlock
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class DinoVitPooling(SelfAttentionBlock, Pooling):
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
        super().__init__(width, num_attention_heads, mlp_ratio, qkv_bias=False)
        self.num_features, self.num_tokens = width, layout.num_tokens

    def forward(self, tokens: Tensor) -> Pooled:  # type: ignore[override]  # the block, then the mean
        """Pool tokens `(B, T, D)`."""
        states, attention = self.with_attention(tokens)
        return Pooled(states.mean(1), attention.mean(2))

    def block_attention(self, tokens: Tensor) -> Tensor:
        """The attention of every token on every token, `(B, h, T, T)`, rows sum to 1."""
        return self.attention(tokens)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        total = self.block_multiply_adds(self.num_tokens)
        return MultiplyAdds(total, total)
