"""The attention pooling head of SigLIP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.multihead import Mlp, block_multiply_adds, check_heads, fold_keys, map_values
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import QueryPooling
from attentive_probes.tokens import SequenceLayout


class SiglipPooling(QueryPooling):
    """SigLIP's multi-head attention pooling (MAP) head: one learned query, an output map, a residual MLP.

    "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv 2303.15343, after arXiv 2106.04560 and 1810.00825;
    in the form the EP paper studies, without a LayerNorm before the MLP. How we differ: keys and values fold around the
    pooling, and the key bias, which has no effect, is gone.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.
        mlp_ratio: Hidden width of the MLP over D.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2303.15343"
    learning_rate = 0.001
    query_speed = 10.0

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 8, mlp_ratio: float = 4.0):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.query = nn.Parameter(torch.empty(width))
        self.query_map = nn.Linear(width, width)
        self.key_map = nn.Linear(width, width, bias=False)
        self.value_map = nn.Linear(width, width)
        self.out_map = nn.Linear(width, width)
        self.mlp = Mlp(width, mlp_ratio)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the query from a normal distribution cut at two sigmas, times `D ** -0.5`."""
        std = len(self.query) ** -0.5
        nn.init.trunc_normal_(self.query, std=std, a=-2 * std, b=2 * std)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The query per attention head."""
        return Queries(fold_keys(self.query_map(self.query), self.key_map, self.num_attention_heads))

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Map values and output, add the MLP."""
        features = self.out_map(map_values(pooled, self.value_map))
        return features + self.mlp(features)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        return block_multiply_adds(self.num_features, self.num_tokens, self.num_attention_heads, self.mlp)
