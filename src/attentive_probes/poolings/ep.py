"""Efficient probing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.multihead import map_values
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import Part, QueryPooling
from attentive_probes.tokens import SequenceLayout


class EfficientProbing(QueryPooling):
    """Efficient probing (EP): learned full-width queries, each of which fills its own slice of the feature vector.

    "Attention, Please! Revisiting Attentive Probing Through the Lens of Efficiency", ICLR 2026, arXiv 2506.10178.
    Query j gives logits `<u_j, x_n> / sqrt(D)` without a key projection, and its pooled value is slice j of a value
    projection of width `D / d_out`; the slices are concatenated. How we differ: the projection acts after the pooling,
    which is the same function at about `D / (2 Q d_out)` times fewer multiply-adds.

    With `elastic: 8` the same parameters also serve with 1/2, 1/4 and 1/8 of the features, as the paper's appendix on
    nested representations has it: with fewer queries, with fewer channels of each, or both; see `shrink` of a probe.
    Of each training image one such part is used.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_queries: Number of queries Q, which is also the number of attention maps.
        d_out: The features have width `D / d_out`.
        bias: Whether the value projection has a bias.
        elastic: What the number of features can be divided by, at most; 1 for nothing.

    Shapes: tokens `(B, T, D)` -> features `(B, D / d_out)`, attention `(B, Q, T)`, rows sum to 1.

    Raises:
        ValueError: If `d_out` does not divide D, `num_queries` or `elastic` do not divide `D / d_out`, or `elastic` is
            no power of two.
    """

    paper = "https://arxiv.org/abs/2506.10178"
    learning_rate = 0.003
    query_speed = 100.0

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        num_queries: int = 32,
        d_out: int = 1,
        bias: bool = False,
        elastic: int = 1,
    ):
        super().__init__()
        if d_out < 1 or width % d_out:
            raise ValueError(f"d_out={d_out} does not divide the token width {width}.")
        self.num_features, self.num_tokens = width // d_out, layout.num_tokens
        if num_queries < 1 or self.num_features % num_queries:
            valid = [q for q in range(1, min(self.num_features, 256) + 1) if self.num_features % q == 0]
            raise ValueError(
                f"num_queries={num_queries} does not divide the feature width {self.num_features} "
                f"(token width {width} / d_out {d_out}); choose one of {valid}."
            )
        if elastic & (elastic - 1) or self.num_features % elastic:
            valid = [1 << i for i in range(20) if self.num_features % (1 << i) == 0]
            raise ValueError(
                f"elastic={elastic} is no power of two that divides the {self.num_features} features; choose one of "
                f"{valid}."
            )
        self.elastic = elastic
        self.query = nn.Parameter(torch.empty(num_queries, width))
        self.value = nn.Linear(width, self.num_features, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries from a normal distribution with standard deviation 0.02."""
        nn.init.normal_(self.query, std=0.02)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """Scaled queries `(Q, D)`."""
        return Queries(self.query * self.query.shape[1] ** -0.5)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Project pooled tokens `(B, Q, D)`, each with its own slice of the values, to features `(B, D / d_out)`."""
        return map_values(pooled, self.value)

    def parts(self) -> dict[Part, Tensor]:
        """Every part of 1, 1/2, ... 1/elastic of the features: the first queries, and the first channels of each."""
        num_queries, channels = len(self.query), self.num_features // len(self.query)
        found = {}
        for part in (Part(1 << i, 1 << j) for i in range(20) for j in range(20)):
            if 1 < self.elastic >= part.level and num_queries % part.queries == 0 == channels % part.channels:
                kept = torch.zeros(num_queries, channels, dtype=torch.bool, device="cpu")
                kept[: num_queries // part.queries, : channels // part.channels] = True
                found[part] = kept.flatten()
        return found

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        (num_queries, width), features = self.query.shape, self.num_features
        scores = self.num_tokens * num_queries * width
        project = width * features
        return MultiplyAdds(scores + self.num_tokens * (project + features), 2 * scores + project)
