"""Cross-attention of one learned query with its own LayerNorm on query, keys and values: what CAE and ALF share."""

from __future__ import annotations

from torch import Tensor, nn

from attentive_probes.layers.multihead import fold_keys, map_normed_values, norm_queries
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics


class NormedCrossAttention(nn.Module):
    """One query `(D,)` attends to tokens: maps without bias to `inner` channels, an output map with bias.

    Args:
        width: Token width D.
        inner: Width A of queries, keys and values, over all attention heads.
        num_attention_heads: Number of attention heads.
    """

    def __init__(self, width: int, inner: int, num_attention_heads: int):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.norm_query, self.norm_value = nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)
        self.norm_key = nn.LayerNorm(width, eps=1e-5, bias=False)  # its bias would cancel in the softmax
        self.query_map, self.key_map, self.value_map = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out_map = nn.Linear(inner, width)

    def queries(self, query: Tensor, statistics: TokenStatistics, dropout: float = 0.0) -> Queries:
        """The query `(D,)` per attention head, in token space."""
        mapped = self.query_map(self.norm_query(query))
        vectors = norm_queries(fold_keys(mapped, self.key_map, self.num_attention_heads), self.norm_key)
        return Queries(
            vectors,
            statistics.layer_scale(self.norm_key.eps),
            dropout=dropout if self.training else 0.0,
            token_mean=statistics.token_mean,
        )

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Features `(B, D)` from pooled tokens `(B, h, D)`."""
        return self.out_map(map_normed_values(pooled, attention, queries, self.norm_value, self.value_map))

    def multiply_adds(self, num_tokens: int) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        inner, width = self.query_map.weight.shape
        maps = inner * width
        return MultiplyAdds(
            2 * num_tokens * (maps + inner) + 2 * maps,
            2 * num_tokens * self.num_attention_heads * width + 2 * maps,
        )
