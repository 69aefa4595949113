"""Learning rates by name: `auto` is what was measured for a pooling, `auto*3` and `auto/3` lie around it.

Queries have a rate of their own. A step of AdamW moves every number by about the rate, whatever its gradient; what the
same step does to attention depends on how the numbers enter the logits, which poolings do differently
(`docs/protocol.md`).
"""

from __future__ import annotations

import re

from attentive_probes.checks import NOT_NEGATIVE
from attentive_probes.poolings import find_pooling

AUTO = "auto"
AROUND = re.compile(r"auto(?:\s*([*/])\s*(\d+(?:\.\d+)?))?")


def rate_of(value: float | str, pooling: str) -> float:
    """The learning rate that a number or a text stands for, with a pooling.

    Args:
        value: A number; `auto`, the rate of the pooling that was measured with AdamW (`docs/protocol.md`); or that rate
            times or over a number, such as `auto*3`.
        pooling: Name of the pooling.

    Raises:
        ValueError: If the text has another form, the number is negative, or the pooling is unknown.
    """
    return _parsed("learning_rate", value, find_pooling(pooling).learning_rate)


def query_rate_of(value: float | str | None, learning_rate: float, pooling: str) -> float:
    """The learning rate of the queries of a head, or of what says where to look in their place.

    Args:
        value: A number; `auto`, the rate of the head times the `query_speed` of its pooling; that times or over a
            number; or `None`, the rate of the head.
        learning_rate: That of the head.
        pooling: Name of the pooling.

    Raises:
        ValueError: As `rate_of`.
    """
    if value is None:
        return learning_rate
    return _parsed("query_learning_rate", value, learning_rate * find_pooling(pooling).query_speed)


def is_automatic(value: float | str | None) -> bool:
    """Whether a learning rate is stated as `auto` or around it."""
    return isinstance(value, str) and AROUND.fullmatch(value.strip()) is not None


def _parsed(key: str, value: float | str, automatic: float) -> float:
    if isinstance(value, str):
        value = _stated(key, value, automatic)
    if value not in NOT_NEGATIVE:
        raise ValueError(f"{key} is {value!r}; it must be {NOT_NEGATIVE}.")
    return value


def _stated(key: str, text: str, automatic: float) -> float:
    found = AROUND.fullmatch(text.strip())
    if found is None:
        try:
            return float(text)
        except ValueError as error:
            raise ValueError(
                f"{key} is {text!r}; write a number, auto, or a rate around it such as auto*3 or auto/3."
            ) from error
    factor = float(found[2] or 1)
    if factor == 0:
        raise ValueError(f"{key} is {text!r}; the factor must be above 0.")
    return float(f"{automatic / factor if found[1] == '/' else automatic * factor:.3g}")
