"""The attentive probe of AIM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.multihead import check_heads, fold_keys, map_values
from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import QueryPooling
from attentive_probes.tokens import SequenceLayout


class AimPooling(QueryPooling):
    """AIM's attentive probe: batch-normalized tokens, learned queries without a query map, no output map.

    "Scalable Pre-training of Large Autoregressive Image Models", ICML 2024, arXiv 2401.08541. Several queries are
    averaged. How we differ: keys, values and the batch normalization (no affine, eps 1e-6) fold around the pooling;
    its statistics span all processes.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.
        num_queries: Number of queries Q.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, Q h, T)`, query by query, rows sum to 1.

    Raises:
        ValueError: If the attention heads do not divide D, or there is no query.
    """

    paper = "https://arxiv.org/abs/2401.08541"
    learning_rate = 0.001
    query_speed = 30.0

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 12, num_queries: int = 1):
        super().__init__()
        check_heads(width, num_attention_heads)
        if num_queries < 1:
            raise ValueError(f"num_queries={num_queries}; there must be at least one.")
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.query = nn.Parameter(torch.empty(num_queries, width))
        self.norm = BatchNorm(width)
        self.key_map = nn.Linear(width, width, bias=False)
        self.value_map = nn.Linear(width, width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries from a normal distribution with standard deviation 0.02."""
        nn.init.normal_(self.query, std=0.02)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """Each query per attention head; in training this updates the running statistics."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        if self.training:
            mean, variance, count = statistics.joint_channel_moments()
            self.norm.track(mean, variance, count)
        scale = (variance + self.norm.eps).rsqrt()
        vectors = fold_keys(self.query, self.key_map, self.num_attention_heads).flatten(0, 1)
        return Queries(vectors * scale, channels=(mean, scale))

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Normalize pooled tokens, average over queries, map values."""
        assert queries.channels is not None
        mean, scale = queries.channels
        averaged = pooled.unflatten(1, (-1, self.num_attention_heads)).mean(1)
        return map_values((averaged - mean) * scale, self.value_map)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        (num_queries, width), tokens = self.query.shape, self.num_tokens
        maps = num_queries * self.num_attention_heads
        return MultiplyAdds(
            2 * tokens * width * width + 2 * tokens * num_queries * width, 2 * tokens * maps * width + width * width
        )
