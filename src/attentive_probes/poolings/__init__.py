"""The list of poolings.

A new one is a file beside this one and a line in `POOLINGS`; one of another package is registered, see
`register_pooling`.
"""

from __future__ import annotations

import inspect
import logging
from functools import cache
from importlib.metadata import entry_points, packages_distributions
from typing import Any

from attentive_probes.checks import Range, unknown_name
from attentive_probes.poolings.abmilp import AbmilpPooling
from attentive_probes.poolings.aim import AimPooling
from attentive_probes.poolings.alf import AttentiveLayerFusion
from attentive_probes.poolings.alf_ep import SummaryFusion
from attentive_probes.poolings.base import Part, Pooled, Pooling, QueryPooling, pool_together
from attentive_probes.poolings.cae import ContextAutoencoderPooling
from attentive_probes.poolings.cait import CaitPooling
from attentive_probes.poolings.cbam import CbamPooling
from attentive_probes.poolings.clip import ClipPooling
from attentive_probes.poolings.coca import CocaPooling
from attentive_probes.poolings.combo import ComboPooling
from attentive_probes.poolings.concat import ConcatPooling
from attentive_probes.poolings.dinovit import DinoVitPooling
from attentive_probes.poolings.dolg import DolgPooling
from attentive_probes.poolings.ep import EfficientProbing
from attentive_probes.poolings.esimpool import EfficientSimPool
from attentive_probes.poolings.jepa import JepaPooling
from attentive_probes.poolings.mean import MeanPooling
from attentive_probes.poolings.prototypes import PrototypePooling
from attentive_probes.poolings.siglip import SiglipPooling
from attentive_probes.poolings.simpool import SimPool
from attentive_probes.poolings.weighted import WeightedPooling
from attentive_probes.tokens import SequenceLayout

__all__ = [
    "POOLINGS",
    "Part",
    "Pooled",
    "Pooling",
    "QueryPooling",
    "build_pooling",
    "find_pooling",
    "known_poolings",
    "package_of",
    "pool_together",
    "pooling_options",
    "register_pooling",
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
    "alf_ep": SummaryFusion,
    "prototypes": PrototypePooling,
    "combo": ComboPooling,
}


OURS = frozenset(POOLINGS)
MAX_COUNT = 10**6
# Option, or its type -> what it may be.
OPTION_RANGES = {
    "int": Range(1, MAX_COUNT, whole=True),
    "int | None": Range(1, MAX_COUNT, whole=True, optional=True),
    "float": Range(0, MAX_COUNT, above=True),
    "attention_dropout": Range(0, 1, below=True),
    "depth": Range(1, 100, whole=True),
    "num_blocks": Range(1, 100, whole=True),
    "elastic": Range(1, 2**19, whole=True),
    "num_self_blocks": Range(0, 100, whole=True),
}
ENTRY_POINTS = "attentive_probes.poolings"


def register_pooling(name: str, pooling: type[Pooling]) -> None:
    """Make a pooling of another package, or of a notebook, known by a name, wherever poolings are named.

    A package that lists its poolings as entry points of the group `attentive_probes.poolings` needs no call: they are
    found when they are first asked for, by the command line as well.

    Args:
        name: What recipes and `HeadConfig.pooling` call it.
        pooling: A final subclass of `Pooling` or `QueryPooling`; `attentive_probes.testing.check_pooling` checks it.

    Raises:
        ValueError: If the name is taken, or the class is no pooling that can be built from width, layout and options.
    """
    known = POOLINGS.get(name)
    if known is not None and (name in OURS or _identity(known) != _identity(pooling)):
        raise ValueError(f"The name {name!r} is taken by the pooling {_identity(known)}; choose another one.")
    if not name or not (isinstance(pooling, type) and issubclass(pooling, Pooling)) or inspect.isabstract(pooling):
        raise ValueError(f"{name!r}: {pooling!r} is no final subclass of attentive_probes.poolings.Pooling.")
    parameters = list(inspect.signature(pooling).parameters.values())
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = [p for p in parameters if p.kind is not p.POSITIONAL_OR_KEYWORD]
    if positional != ["width", "layout"] or any(p.kind is not p.KEYWORD_ONLY or p.default is p.empty for p in options):
        raise ValueError(
            f"The pooling {name!r} takes {inspect.signature(pooling)}; write (width, layout, *, option=default, ...)."
        )
    POOLINGS[name] = pooling


def known_poolings() -> dict[str, type[Pooling]]:
    """Name -> class of every pooling: ours, registered ones, and those of installed packages."""
    _load_entry_points()
    return POOLINGS


def find_pooling(name: str) -> type[Pooling]:
    """The class of a pooling.

    Raises:
        ValueError: If it is unknown, or the package that brings it cannot be imported.
    """
    if name not in POOLINGS:
        broken = _load_entry_points()
        if name in broken:
            raise ValueError(f"The pooling {name!r} cannot be loaded: {broken[name]}.")
        if name not in POOLINGS:
            raise ValueError(unknown_name("pooling", name, POOLINGS))
    return POOLINGS[name]


def package_of(name: str) -> str | None:
    """The package that brings a pooling, to be named where it is missing; `None` for ours.

    Raises:
        ValueError: If the pooling is unknown.
    """
    pooling = find_pooling(name)
    if name in OURS:
        return None
    module = pooling.__module__.partition(".")[0]
    return next(iter(packages_distributions().get(module, [module])))


@cache
def _load_entry_points() -> dict[str, str]:
    """Register what installed packages offer; name -> reason for those that cannot be."""
    broken = {}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            register_pooling(entry.name, entry.load())
        except Exception as error:  # whatever importing a foreign package raises
            owner = entry.dist.name if entry.dist else entry.value
            broken[entry.name] = f"the package {owner!r} fails with {type(error).__name__}: {error}"
            logging.getLogger(__name__).warning("The pooling %r is left out: %s.", entry.name, broken[entry.name])
    return broken


def _identity(pooling: type) -> str:
    return f"{pooling.__module__}.{pooling.__qualname__}"


def pooling_options(name: str) -> dict[str, Any]:
    """The options of a pooling with their defaults.

    Raises:
        ValueError: If the pooling is unknown.
    """
    parameters = inspect.signature(find_pooling(name)).parameters.values()
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
    pooling = find_pooling(name)
    for option, value in options.items() if name in OURS else ():
        kind = str(inspect.signature(pooling).parameters[option].annotation)
        allowed = OPTION_RANGES.get(option, OPTION_RANGES.get(kind))
        if allowed is not None and value not in allowed:
            raise ValueError(f"{option} is {value!r}; it must be {allowed}.")
        if allowed is None and not isinstance(value, bool if kind == "bool" else str):
            raise ValueError(f"{option} is {value!r}; it must be of the type {kind}.")
    return pooling(width, layout, **options)
