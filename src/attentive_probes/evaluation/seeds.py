"""Mean and spread over seeds: heads that differ in nothing else."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class SeedSummary:
    """Heads that differ by their seed alone.

    Args:
        names: Their names.
        mean: Mean of the test top-1 accuracy, in percent.
        deviation: Sample standard deviation, in points.
    """

    names: tuple[str, ...]
    mean: float
    deviation: float


class TestedHead(Protocol):
    """What is looked at of a head's results."""

    name: str
    head: dict[str, Any]
    learning_rate: float
    weight_decay: float
    test: dict[str, Any] | None


def over_seeds(heads: Sequence[TestedHead]) -> list[SeedSummary]:
    """One summary for each group of two heads or more that were tested and differ by their seed alone."""
    groups: dict[str, list[TestedHead]] = {}
    for head in heads:
        if head.test and "top1" in head.test:
            key = json.dumps([head.head, head.learning_rate, head.weight_decay], sort_keys=True)
            groups.setdefault(key, []).append(head)
    return [
        SeedSummary(
            tuple(head.name for head in group),
            statistics.mean(values := [(head.test or {})["top1"] for head in group]),
            statistics.stdev(values),
        )
        for group in groups.values()
        if len(group) > 1
    ]
