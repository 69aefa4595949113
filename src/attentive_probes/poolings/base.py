"""The contract of a pooling: tokens in, one feature vector and its attention out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from attentive_probes.attend import attend


class Pooled(NamedTuple):
    """Result of a pooling: features `(B, F)` and attention `(B, M, T)`, whose rows sum to 1."""

    features: Tensor
    attention: Tensor


class Pooling(nn.Module, ABC):
    """Abstract pooling. A concrete class is final and takes `(width, layout, *, options...)`.

    Attributes:
        paper: Where the method comes from.
        order_matters: Whether permuting the tokens changes the result.
        num_features: Width F of the features.
    """

    paper: ClassVar[str]
    order_matters: ClassVar[bool] = False
    num_features: int

    @abstractmethod
    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""


class QueryPooling(Pooling, ABC):
    """A pooling whose queries do not depend on the image, hence one call of `attend`.

    Several of them over the same tokens can share that call: concatenate their queries, split the result.
    """

    @abstractmethod
    def queries(self) -> Tensor:
        """What to look for: vectors `(M, D)` in token space, scale included."""

    @abstractmethod
    def readout(self, pooled: Tensor, attention: Tensor) -> Tensor:
        """What to make of pooled tokens `(B, M, D)` and attention `(B, M, T)`: features `(B, F)`."""

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        pooled, attention = attend(tokens, self.queries())
        return Pooled(self.readout(pooled, attention), attention)


def pool_together(poolings: Sequence[Pooling], tokens: Tensor) -> list[Pooled]:
    """Pool tokens `(B, T, D)` in several ways; those with queries share one call of `attend`."""
    querying = [pooling for pooling in poolings if isinstance(pooling, QueryPooling)]
    shared: dict[Pooling, Pooled] = {}
    if len(querying) > 1:
        queries = [pooling.queries() for pooling in querying]
        counts = [len(vectors) for vectors in queries]
        parts = (part.split(counts, dim=1) for part in attend(tokens, torch.cat(queries)))
        for pooling, pooled, attention in zip(querying, *parts, strict=True):
            shared[pooling] = Pooled(pooling.readout(pooled, attention), attention)
    return [shared[pooling] if pooling in shared else pooling(tokens) for pooling in poolings]
