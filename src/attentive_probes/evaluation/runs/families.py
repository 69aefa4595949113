"""Choosing among heads that were tried in several ways: settings by their mean over seeds, one line per head family."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attentive_probes.checks import unknown_name
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.score import primary_metric
from attentive_probes.files.fingerprint import fingerprint_of
from attentive_probes.problems import SMALLER_IS_BETTER

BEST = "best"  # the selected head, where a name is asked for


@dataclass(frozen=True)
class Setting:
    """Heads of a family that differ by their seed alone.

    Args:
        names: Their names, the best on validation first.
        validation: Mean of the selection metric over them; `None` if one of them has none.
        validation_deviation: Its sample standard deviation; `None` for a single seed.
        metric: The metric of the test split that stands for the problem; `None` if it was not scored.
        test: Its mean.
        test_deviation: Its sample standard deviation.
    """

    names: tuple[str, ...]
    validation: float | None
    validation_deviation: float | None = None
    metric: str | None = None
    test: float | None = None
    test_deviation: float | None = None


@dataclass(frozen=True)
class Family:
    """The best setting of a head family, such as one pooling crossed with rates, layers and seeds.

    Args:
        name: Name of the family.
        best: Its setting with the best mean over seeds on validation.
        num_settings: How many were tried.
    """

    name: str
    best: Setting
    num_settings: int


def settings_of(heads: Sequence[HeadResult], metric: str) -> list[Setting]:
    """The settings among some heads of one family, in order of first appearance."""
    groups: dict[str, list[HeadResult]] = {}
    for head in heads:
        groups.setdefault(setting_key(head), []).append(head)
    return [_setting(group, metric) for group in groups.values()]


def setting_key(head: HeadResult) -> str:
    """What is the same for heads of one setting: the whole head and how it was trained, all but the seed."""
    told = {"head": head.head, "learning_rate": head.learning_rate, "weight_decay": head.weight_decay}
    if head.has_fast_queries:
        told["query_learning_rate"] = head.query_learning_rate
    return fingerprint_of(told)


def best_of(values: Mapping[str, Sequence[float | None]], metric: str) -> str:
    """The setting with the best mean over seeds; the first among equals. One that lacks a value comes last.

    Args:
        values: Setting -> the selection metric of each of its seeds; `None` or NaN for one that has none.
        metric: The selection metric, which says whether small or large is good.
    """
    return min(values, key=lambda key: cost(mean_of(values[key]), metric))


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of some values; `None` if one of them is lacking."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.mean(known) if known and len(known) == len(values) else None


def best_setting(settings: Sequence[Setting], metric: str) -> Setting:
    """As `best_of`, of settings."""
    by_name = {setting.names[0]: setting for setting in settings}
    return by_name[best_of({name: [setting.validation] for name, setting in by_name.items()}, metric)]


def best_per_head(heads: Sequence[HeadResult], metric: str, winner: str | None = None) -> list[Family]:
    """The best setting of every family, families in order of first appearance.

    Args:
        heads: The heads of a run.
        metric: The selection metric.
        winner: A head that was selected among all candidates, whose setting stands for its family whatever its mean.
    """
    families: dict[str, list[HeadResult]] = {}
    for head in heads:
        families.setdefault(head.family or head.name, []).append(head)
    found = []
    for name, members in families.items():
        settings = settings_of(members, metric)
        chosen = [setting for setting in settings if winner in setting.names] or settings
        found.append(Family(name, best_setting(chosen, metric), len(settings)))
    return found


def head_named(name: str, heads: Sequence[HeadResult], metric: str, what: str = "head") -> str:
    """The head that a name stands for: a head, the best of a family such as one crossed with rates, or `best` of all.

    Args:
        name: The name.
        heads: The heads of a run, with their values on validation.
        metric: The selection metric.
        what: What the name is, for messages.

    Raises:
        ValueError: If there is neither a head nor a family of that name.
    """
    check_name(name, {head.name: head.family for head in heads}, what)
    members = [head for head in heads if name in (head.name, BEST)]
    members = members or [head for head in heads if (head.family or head.name) == name] or list(heads)
    return best_setting(settings_of(members, metric), metric).names[0]


def check_name(name: str, families: Mapping[str, str], what: str = "head") -> None:
    """Check that a name is one of a head, of a family, or `best`.

    Args:
        name: The name.
        families: Name of each head -> name of its family, or nothing for its own.
        what: What the name is, for messages.

    Raises:
        ValueError: If it is not.
    """
    known = dict.fromkeys([*families, *filter(None, families.values()), BEST])
    if name not in known:
        raise ValueError(unknown_name(what, name, known))


def cost(value: float | None, metric: str) -> float:
    """What is minimized: a metric where small is good, its negative where large is; infinite if there is no value."""
    if value is None or not math.isfinite(value):
        return math.inf
    return value if metric in SMALLER_IS_BETTER else -value


def value_of(head: HeadResult, metric: str) -> float | None:
    """A metric of a head on validation; `None` for one whose loss there is no finite number."""
    loss = head.validation.get("loss", 0.0)
    return None if loss is None or not math.isfinite(loss) else head.validation.get(metric)


def _setting(group: list[HeadResult], metric: str) -> Setting:
    values = [value_of(head, metric) for head in group]
    mean = mean_of(values)
    ranked = sorted(group, key=lambda head: cost(value_of(head, metric), metric))
    tested = [head.test for head in group if head.test]
    primary = primary_metric(tested[0]) if tested else None
    scores = [test[primary] for test in tested if primary is not None]
    return Setting(
        tuple(head.name for head in ranked),
        mean,
        statistics.stdev(values) if mean is not None and len(values) > 1 else None,  # type: ignore[type-var]  # all known
        primary,
        statistics.mean(scores) if scores else None,
        statistics.stdev(scores) if len(scores) > 1 else None,
    )
