"""SimPool without linear maps."""

from __future__ import annotations

from torch import Tensor, nn

from attentive_probes.layers.multihead import check_heads
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class EfficientSimPool(Pooling):
    """SimPool without linear maps: the normed mean token queries normed tokens, head by head; values are raw tokens.

    Introduced for comparison by "Attention, Please! Revisiting Attentive Probing Through the Lens of Efficiency", ICLR
    2026, arXiv 2506.10178. How we differ: the number of attention heads is free.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2506.10178"

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 8):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        heads = (self.num_attention_heads, -1)
        query = self.norm(tokens.mean(1, keepdim=True)).unflatten(-1, heads).transpose(1, 2)  # (B, h, 1, d)
        keys = self.norm(tokens).unflatten(-1, heads).transpose(1, 2)  # (B, h, T, d)
        values = tokens.unflatten(-1, heads).transpose(1, 2)
        attention = (query @ keys.mT * keys.shape[-1] ** -0.5).softmax(-1)  # (B, h, 1, T)
        return Pooled((attention @ values).flatten(1), attention.squeeze(2))

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        return MultiplyAdds(2 * self.num_tokens * self.num_features, 2 * self.num_tokens * self.num_features)
