"""What a head costs: trained parameters, and multiply-adds per image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings import build_pooling, known_poolings, pooling_options
from attentive_probes.tokens import SequenceLayout


@dataclass(frozen=True)
class HeadCosts:
    """Costs of one pooling at its default options, with a linear classifier.

    Args:
        pooling: Its name.
        paper: Where it comes from.
        options: Its options with their defaults.
        parameters: Trained parameters, classifier included.
        multiply_adds: Multiply-adds of the pooling per image, as written and folded.
        problem: Why it cannot be built at this size, or nothing.
    """

    pooling: str
    paper: str
    options: dict[str, Any]
    parameters: int = 0
    multiply_adds: MultiplyAdds = field(default_factory=lambda: MultiplyAdds(0, 0))
    problem: str = ""


def head_costs(width: int, num_tokens: int, num_labels: int) -> list[HeadCosts]:
    """Costs of every pooling for a token width D, a number of tokens N (a grid, if it is a square) and C classes."""
    side = math.isqrt(num_tokens)
    layout = SequenceLayout(num_tokens, (side, side) if side * side == num_tokens else None)
    rows = []
    for name, pooling_class in known_poolings().items():
        options = pooling_options(name)
        try:
            with torch.device("meta"):
                pooling = build_pooling(name, width, layout, {})
        except ValueError as error:
            rows.append(HeadCosts(name, pooling_class.paper, options, problem=str(error)))
            continue
        trained = sum(parameter.numel() for parameter in pooling.parameters())
        classifier = num_labels * (pooling.num_features + 1)
        rows.append(HeadCosts(name, pooling_class.paper, options, trained + classifier, pooling.multiply_adds()))
    return rows
