"""The contract of a pooling: tokens in, one feature vector and its attention out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from attentive_probes.layers.precision import in_autocast
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics

QUERIES_AT_ONCE = 128


class Pooled(NamedTuple):
    """Result of a pooling: features `(B, F)` and attention `(B, M, T)`."""

    features: Tensor
    attention: Tensor


class Part(NamedTuple):
    """A part of the features: what the number of queries, and of channels of each, is divided by."""

    queries: int
    channels: int

    @property
    def level(self) -> int:
        """What the number of features is divided by."""
        return self.queries * self.channels


class Pooling(nn.Module, ABC):
    """Abstract pooling. A concrete class is final and takes `(width, layout, *, options...)`.

    Attributes:
        paper: Where the method comes from: a link, or an empty string.
        order_matters: Whether permuting the tokens changes the result; for some it depends on their options.
        attention_kind: What a row of the attention is: a `distribution` (sums to 1), `partial` (a token of the
            pooling's own takes the rest), or unnormalized `gates`.
        num_features: Width F of the features.
        folds: Whether the pooling is one call of `attend` between its `queries` and its `readout`, see `QueryPooling`;
            for some it depends on their options.
        learning_rate: Peak learning rate of AdamW that does well in most places, as `docs/protocol.md` has measured.
        query_parameters: Parts of the names of those parameters that say where to look: queries, scores, gates.
        query_speed: How many times faster than the others these learn, where rates are automatic.
        is_fixed: Whether it has neither parameters nor options, so that all heads that read the same pool alike.
    """

    paper: ClassVar[str]
    order_matters: bool = False
    attention_kind: ClassVar[str] = "distribution"
    num_features: int
    folds: bool = False
    is_fixed: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 0.01
    query_parameters: ClassVar[frozenset[str]] = frozenset({"query"})
    query_speed: ClassVar[float] = 1.0

    @property
    def shares_out(self) -> bool:
        """Whether its attention is shared out among tokens by what they hold; gates, and plain means, are not."""
        return self.attention_kind != "gates" and not self.is_fixed

    def seeking_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, of those that say where to look: `query_parameters` of this pooling and its parts."""
        return {name: p for name, p in self.named_parameters() if self.query_parameters & set(name.split("."))}

    @abstractmethod
    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""

    def parts(self) -> Mapping[Part, Tensor]:
        """Parts of the features that are to serve alone as well: which of the features `(F,)` belong to each."""
        return {}

    @abstractmethod
    def multiply_adds(self) -> MultiplyAdds:
        """Multiply-adds of matrix products per image; norms, softmax and activations are not counted."""


class QueryPooling(Pooling, ABC):
    """A pooling whose queries do not depend on the image, hence one call of `attend`.

    Several of them over the same tokens can share that call: concatenate their queries, split the result.
    """

    folds = True

    @abstractmethod
    def queries(self, statistics: TokenStatistics) -> Queries:
        """What to look for."""

    @abstractmethod
    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """What to make of pooled tokens `(B, M, D)` and attention `(B, M, T)`: features `(B, F)`.

        Both come in float32 at least: a layer in half precision needs them in its own.
        """

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        return fold(self, TokenStatistics(tokens))


class Folding(Protocol):
    """Anything with the two halves of a `QueryPooling`."""

    def queries(self, statistics: TokenStatistics) -> Queries:
        """What to look for."""

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """What to make of it."""


def fold(pooling: Folding, statistics: TokenStatistics) -> Pooled:
    """Pool tokens by one call of `attend`."""
    queries = pooling.queries(statistics)
    return _read_out(pooling, *queries.attend(statistics.tokens), queries, statistics.tokens)


def _read_out(pooling: Folding, pooled: Tensor, attention: Tensor, queries: Queries, tokens: Tensor) -> Pooled:
    features = pooling.readout(pooled, attention, queries)
    return Pooled(features if in_autocast(tokens) else features.to(tokens.dtype), attention)


def pool_together(poolings: Sequence[Pooling], statistics: TokenStatistics) -> list[Pooled]:
    """Pool the same tokens in several ways; those with queries share one call of `attend`.

    A pooling that drops attention weights in training draws them by itself, so that its neighbours do not matter.
    """
    querying = [cast(QueryPooling, pooling) for pooling in poolings if pooling.folds]
    queries = {pooling: pooling.queries(statistics) for pooling in querying}
    shared = [pooling for pooling in querying if not queries[pooling].dropout]
    results: dict[Pooling, Pooled] = {}
    for group in _groups(shared, [len(queries[pooling].vectors) for pooling in shared]):
        joint = _concatenated([queries[pooling] for pooling in group], statistics.tokens)
        counts = [len(queries[pooling].vectors) for pooling in group]
        parts = (part.split(counts, dim=1) for part in joint.attend(statistics.tokens))
        for pooling, pooled, attention in zip(group, *parts, strict=True):
            results[pooling] = _read_out(pooling, pooled, attention, queries[pooling], statistics.tokens)
    for pooling in querying:
        if pooling not in results:
            found = queries[pooling].attend(statistics.tokens)
            results[pooling] = _read_out(pooling, *found, queries[pooling], statistics.tokens)
    fixed = {type(pooling): pooling for pooling in poolings if pooling.is_fixed}
    of_type = {kind: pooling(statistics.tokens) for kind, pooling in fixed.items()}
    for pooling in poolings:
        if pooling not in results:
            results[pooling] = of_type[type(pooling)] if pooling.is_fixed else pooling(statistics.tokens)
    return [results[pooling] for pooling in poolings]


def _groups(poolings: list[QueryPooling], counts: list[int]) -> list[list[QueryPooling]]:
    """Poolings in order, in groups of up to 128 queries: products with more are no faster, their results too large."""
    groups: list[list[QueryPooling]] = []
    total = QUERIES_AT_ONCE
    for pooling, count in zip(poolings, counts, strict=True):
        if total + count > QUERIES_AT_ONCE:
            groups.append([])
            total = 0
        groups[-1].append(pooling)
        total += count
    return groups


def _concatenated(parts: list[Queries], tokens: Tensor) -> Queries:
    if len(parts) == 1:
        return parts[0]
    batch, length, _ = tokens.shape
    scale = parts[0].token_scale
    if any(part.token_scale is not scale for part in parts):  # heads that norm differently: a scale per query
        rows = [None if p.token_scale is None else p.token_scale.mT.expand(len(p.vectors), -1, -1) for p in parts]
        scale = _gathered(parts, rows, 1.0, (length, batch)).permute(2, 0, 1)  # (B, M, T)
    biases, sinks = [part.logit_bias for part in parts], [part.sink for part in parts]
    return Queries(
        torch.cat([part.vectors for part in parts]),
        scale,
        _gathered(parts, biases, 0.0, (length,)) if any(b is not None for b in biases) else None,
        _gathered(parts, sinks, float("-inf"), ()) if any(s is not None for s in sinks) else None,
    )


def _gathered(parts: list[Queries], values: list[Tensor | None], neutral: float, shape: tuple[int, ...]) -> Tensor:
    like = next(value for value in values if value is not None)
    sizes = [(len(part.vectors), *shape) for part in parts]
    return torch.cat(
        [like.new_full(size, neutral) if v is None else v.expand(size) for size, v in zip(sizes, values, strict=True)]
    )
