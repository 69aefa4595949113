"""The list of poolings. A new one is a file beside this one and a line in `POOLINGS`."""

from __future__ import annotations

import inspect
from typing import Any

from attentive_probes.naming import unknown_name
from attentive_probes.poolings.abmilp import AbmilpPooling
from attentive_probes.poolings.aim import AimPooling
from attentive_probes.poolings.alf import AttentiveLayerFusion
from attentive_probes.poolings.base import MultiplyAdds, Pooled, Pooling, Queries, QueryPooling, pool_together
from attentive_probes.poolings.cae import ContextAutoencoderPooling
from attentive_probes.poolings.cait import CaitPooling
from attentive_probes.poolings.cbam import CbamPooling
from attentive_probes.poolings.clip import ClipPooling
from attentive_probes.poolings.coca import CocaPooling
from attentive_probes.poolings.concat import ConcatPooling
from attentive_probes.poolings.dinovit import DinoVitPooling
from attentive_probes.poolings.dolg import DolgPooling
from attentive_probes.poolings.ep import EfficientProbing
from attentive_probes.poolings.esimpool import EfficientSimPool
from attentive_probes.poolings.jepa import JepaPooling
from attentive_probes.poolings.mean import MeanPooling
from attentive_probes.poolings.siglip import SiglipPooling
from attentive_probes.poolings.simpool import SimPool
from attentive_probes.poolings.weighted import WeightedPooling
from attentive_probes.tokens import SequenceLayout

__all__ = [
    "POOLINGS",
    "MultiplyAdds",
    "Pooled",
    "Pooling",
    "Queries",
    "QueryPooling",
    "build_pooling",
    "pool_together",
    "pooling_options",
]

POOLINGS: dict[str, type[Pooling]] = {
    "mean": MeanPooling,
    "concat": ConcatPooling,
    "weighted": WeightedPooling,
    "ep": EfficientProbing,
    "abmilp": AbmilpPooling,
    "simpool": SimPool,
    "esimpool": EfficientSimPool,
    "clip": ClipPooling,
    "siglip": SiglipPooling,
    "aim": AimPooling,
    "cbam": CbamPooling,
    "coca": CocaPooling,
    "cait": CaitPooling,
    "dinovit": DinoVitPooling,
    "jepa": JepaPooling,
    "dolg": DolgPooling,
    "cae": ContextAutoencoderPooling,
    "alf": AttentiveLayerFusion,
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
