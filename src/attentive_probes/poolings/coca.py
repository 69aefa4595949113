"""The attentional pooler of CoCa."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import QueryPooling
from attentive_probes.tokens import SequenceLayout


class CocaPooling(QueryPooling):
    """CoCa's attentional pooler: one query, several attention heads that share one key and one value projection.

    "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022, arXiv 2205.01917. How we differ: the
    published probe owns 196 queries and reads the output of the first; here there is that one. Keys and values fold
    around the pooling.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.
        head_width: Width of a head, whatever D is.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1.

    Raises:
        ValueError: If a size is not positive.
    """

    paper = "https://arxiv.org/abs/2205.01917"
    learning_rate = 0.0003

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 8, head_width: int = 64):
        super().__init__()
        if min(num_attention_heads, head_width) < 1:
            raise ValueError(f"num_attention_heads={num_attention_heads} and head_width={head_width} must be positive.")
        inner = num_attention_heads * head_width
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.query = nn.Parameter(torch.empty(width))
        self.query_scale = nn.Parameter(torch.ones(width))
        self.query_map = nn.Linear(width, inner, bias=False)
        self.key_map = nn.Linear(width, head_width, bias=False)
        self.value_map = nn.Linear(width, head_width, bias=False)
        self.out_map = nn.Linear(inner, width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the query from a standard normal distribution; its norm starts without a scale."""
        nn.init.normal_(self.query)
        nn.init.ones_(self.query_scale)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The query per attention head."""
        query = F.layer_norm(self.query, self.query.shape, self.query_scale, eps=1e-5)
        per_head = self.query_map(query).unflatten(-1, (self.num_attention_heads, -1))  # (h, d)
        return Queries(per_head @ self.key_map.weight * per_head.shape[-1] ** -0.5)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Map values, shared by the attention heads, and output."""
        return self.out_map(self.value_map(pooled.to(self.value_map.weight.dtype)).flatten(1))

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        width, tokens = self.num_features, self.num_tokens
        head_width, inner = self.key_map.out_features, self.query_map.out_features
        textbook = 2 * inner * width + 2 * head_width * tokens * width + 2 * inner * tokens
        return MultiplyAdds(textbook, 2 * tokens * self.num_attention_heads * width + 2 * inner * width)
