"""The attentive probe of the context autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.cross import NormedCrossAttention
from attentive_probes.layers.multihead import check_heads
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import QueryPooling
from attentive_probes.tokens import SequenceLayout


class ContextAutoencoderPooling(QueryPooling):
    """CAE's attentive probing block: one query, LayerNorms on query, keys and values, an output map.

    "Context Autoencoder for Self-Supervised Representation Learning", IJCV 2023, arXiv 2202.03026. How we differ: keys
    and values fold around the pooling; the fourth LayerNorm of the published module, which it never uses, is gone. The
    query starts at zero, so the attention starts uniform.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2202.03026"
    learning_rate = 0.001

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 8):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.query = nn.Parameter(torch.zeros(width))
        self.cross = NormedCrossAttention(width, width, num_attention_heads)

    def reset_parameters(self) -> None:
        """Start the query at zero."""
        nn.init.zeros_(self.query)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The query per attention head."""
        return self.cross.queries(self.query, statistics)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Map values and output."""
        return self.cross.readout(pooled, attention, queries)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        return self.cross.multiply_adds(self.num_tokens)
