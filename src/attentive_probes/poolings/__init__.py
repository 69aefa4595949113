"""The list of poolings. A new one is a file beside this one and a line in `POOLINGS`."""

from __future__ import annotations

import inspect
from typing import Any

from attentive_probes.naming import unknown_name
from attentive_probes.poolings.base import Pooled, Pooling, QueryPooling, pool_together
from attentive_probes.poolings.ep import EfficientProbing
from attentive_probes.poolings.mean import MeanPooling
from attentive_probes.tokens import SequenceLayout

__all__ = ["POOLINGS", "Pooled", "Pooling", "QueryPooling", "build_pooling", "pool_together", "pooling_options"]

POOLINGS: dict[str, type[Pooling]] = {
    "mean": MeanPooling,
    "ep": EfficientProbing,
}


def pooling_options(name: str) -> dict[str, Any]:
    """The options of a pooling with their defaults.

    Raises:
        ValueError: If the pooling is unknown.
    """
    if name not in POOLINGS:
        raise ValueError(unknown_name("pooling", name, POOLINGS))
    parameters = inspect.signature(POOLINGS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_pooling(name: str, width: int, layout: SequenceLayout, options: dict[str, Any]) -> Pooling:
    """Build the pooling `name` for tokens of `width` laid out as `layout`.

    Raises:
        ValueError: If the pooling or an option is unknown, or the options do not fit the tokens.
    """
    valid = pooling_options(name)
    for option in options:
        if option not in valid:
            if not valid:
                raise ValueError(f"The pooling {name!r} takes no options, but got {option!r}.")
            raise ValueError(unknown_name(f"option of the pooling {name!r}:", option, valid))
    return POOLINGS[name](width, layout, **options)
