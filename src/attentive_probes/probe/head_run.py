"""One head of a sweep and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

from attentive_probes.checks import OPTIONAL_NOT_NEGATIVE, OPTIONAL_SEED, check_ranges
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.making.describe import set_head
from attentive_probes.probe.making.rates import AUTO, is_automatic, query_rate_of, rate_of


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
        query_learning_rate: Peak learning rate of its queries, or of what says where to look in their place: a number;
            `auto`, its learning rate times the `query_speed` of its pooling; that times or over a number. `None` takes
            `auto` with an automatic learning rate, and with a stated one just that.
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
    query_learning_rate: float | str | None = None

    def __post_init__(self) -> None:
        numbers = {"learning_rate": OPTIONAL_NOT_NEGATIVE, "weight_decay": OPTIONAL_NOT_NEGATIVE, "seed": OPTIONAL_SEED}
        if isinstance(self.learning_rate, str) or isinstance(self.query_learning_rate, str):
            rate, query_rate = self.rates(AUTO)
            if self.learning_rate is not None:  # else both depend on the training arguments
                is_own = self.query_learning_rate is not None or is_automatic(self.learning_rate)
                object.__setattr__(self, "learning_rate", rate)
                object.__setattr__(self, "query_learning_rate", query_rate if is_own else None)
        if not isinstance(self.query_learning_rate, str):
            numbers["query_learning_rate"] = OPTIONAL_NOT_NEGATIVE
        check_ranges(self, numbers)

    def rates(self, usual: float | str) -> tuple[float, float]:
        """Peak learning rates of the head and of its queries.

        Args:
            usual: What to take where the head names none.

        Raises:
            ValueError: If a text is no rate.
        """
        stated, pooling = usual if self.learning_rate is None else self.learning_rate, self.head.pooling
        of_queries = self.query_learning_rate
        if of_queries is None and is_automatic(stated):
            of_queries = AUTO
        rate = rate_of(stated, pooling)
        return rate, query_rate_of(of_queries, rate, pooling)

    @property
    def has_automatic_queries(self) -> bool:
        """Whether its queries learn at what its pooling gives for its learning rate."""
        if self.learning_rate is None or self.query_learning_rate is None:
            return self.query_learning_rate is None
        rate = float(self.learning_rate)
        return self.query_learning_rate == query_rate_of(AUTO, rate, self.head.pooling)


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
