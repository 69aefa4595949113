"""One head of a sweep and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.rates import rate_of
from attentive_probes.probe.setup import set_head
from attentive_probes.ranges import OPTIONAL_NOT_NEGATIVE, OPTIONAL_SEED, check_ranges


@dataclass(frozen=True)
class HeadRun:
    """One head of a sweep and how it is trained.

    Args:
        head: The head.
        learning_rate: Its peak learning rate, a number when the head is built: `auto` is the one of its pooling, and
            `auto*3` or `auto/3` lie around that. `None` takes that of the training arguments.
        weight_decay: Its weight decay; `None` takes that of the training arguments.
        seed: Seed of all that is random about it: initial weights, order and views of images. Heads of different seeds
            see different batches. `None` takes that of the training arguments.
        family: Name of what it is one way of, among which one is chosen: the same head at other rates or layers. A grid
            names it after the head that it crosses; `None` is the head's own name.

    Raises:
        ValueError: If a number is out of range.
    """

    head: HeadConfig
    learning_rate: float | str | None = None
    weight_decay: float | None = None
    seed: int | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        numbers = {"learning_rate": OPTIONAL_NOT_NEGATIVE, "weight_decay": OPTIONAL_NOT_NEGATIVE, "seed": OPTIONAL_SEED}
        if isinstance(self.learning_rate, str):
            object.__setattr__(self, "learning_rate", rate_of(self.learning_rate, self.head.pooling))
        check_ranges(self, numbers)


def check_heads(config: ProbeConfig, runs: Mapping[str, HeadRun]) -> None:
    """Build every head without memory, so that a wrong option fails at once.

    Raises:
        ValueError: If a head does not fit the backbone; it names the head.
    """
    for name, run in runs.items():
        try:
            set_head(deepcopy(config), run.head)
        except ValueError as error:
            raise ValueError(f"Head {name!r}: {error}") from error
