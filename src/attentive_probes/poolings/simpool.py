"""SimPool."""

from __future__ import annotations

from torch import Tensor, nn

from attentive_probes.layers.attend import attend
from attentive_probes.layers.multihead import check_heads, fold_keys, norm_pooled, norm_queries
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class SimPool(Pooling):
    """SimPool: the mean token queries the layer-normed tokens, which are also the values.

    "Keep It SimPool: Who Said Supervised Transformers Suffer from Attention Deficit?", ICCV 2023, arXiv 2309.06891;
    without its power mean, as the EP paper studies it. How we differ: keys and the LayerNorm fold per image.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h; head i pools slice i of the channels.
        qkv_bias: Whether the query map has a bias (that of the keys has no effect).

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2309.06891"
    learning_rate = 0.003
    query_parameters = frozenset({"query_map"})

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 1, qkv_bias: bool = False):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query_map = nn.Linear(width, width, bias=qkv_bias)
        self.key_map = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        mapped = self.query_map(tokens.mean(1))
        vectors = norm_queries(fold_keys(mapped, self.key_map, self.num_attention_heads), self.norm)  # (B, h, D)
        pooled, attention = attend(tokens, vectors, TokenStatistics(tokens).layer_scale(self.norm.eps))
        return Pooled(head_slices(norm_pooled(pooled, self.norm)).to(self.norm.weight.dtype), attention)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        width, tokens, heads = self.num_features, self.num_tokens, self.num_attention_heads
        return MultiplyAdds(
            (1 + tokens) * width * width + 2 * tokens * width, 2 * width * width + 2 * tokens * heads * width
        )


def head_slices(pooled: Tensor) -> Tensor:
    """Of pooled tokens `(B, h, D)`, slice i of head i: `(B, D)`."""
    heads = pooled.shape[1]
    return pooled.unflatten(-1, (heads, -1)).diagonal(dim1=1, dim2=2).mT.flatten(1)
