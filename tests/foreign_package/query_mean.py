"""A pooling in a package of its own."""

import torch
from torch import Tensor, nn

from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import QueryPooling
from attentive_probes.tokens import SequenceLayout


class QueryMean(QueryPooling):
    """The average of what a few learned queries see."""

    paper = ""

    def __init__(self, width: int, layout: SequenceLayout, *, num_queries: int = 4):
        super().__init__()
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.query = nn.Parameter(torch.empty(num_queries, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.query, std=0.02)

    def queries(self, statistics: TokenStatistics) -> Queries:
        return Queries(self.query * self.query.shape[1] ** -0.5)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        return pooled.mean(1)

    def multiply_adds(self) -> MultiplyAdds:
        cost = 2 * self.num_tokens * self.query.numel()
        return MultiplyAdds(cost, cost)
