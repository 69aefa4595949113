"""Learning rates by name: `auto` is what was measured for a pooling, `auto*3` and `auto/3` lie around it."""

from __future__ import annotations

import re

from attentive_probes.poolings import find_pooling
from attentive_probes.ranges import NOT_NEGATIVE

AUTO = "auto"
AROUND = re.compile(r"auto(?:\s*([*/])\s*(\d+(?:\.\d+)?))?")


def rate_of(value: float | str, pooling: str) -> float:
    """The learning rate that a number or a text stands for, with a pooling.

    Args:
        value: A number; `auto`, the rate of the pooling that was measured with AdamW (`docs/protocol.md`); or that rate
            times or over a number, such as `auto*3`.
        pooling: Name of the pooling.

    Raises:
        ValueError: If the text is none of these, the number is negative, or the pooling is unknown.
    """
    if isinstance(value, str):
        value = _parsed(value, pooling)
    if value not in NOT_NEGATIVE:
        raise ValueError(f"learning_rate is {value!r}; it must be {NOT_NEGATIVE}.")
    return value


def _parsed(text: str, pooling: str) -> float:
    found = AROUND.fullmatch(text.strip())
    if found is None:
        try:
            return float(text)
        except ValueError as error:
            raise ValueError(
                f"learning_rate is {text!r}; write a number, auto, or a rate around it such as auto*3 or auto/3."
            ) from error
    rate, factor = find_pooling(pooling).learning_rate, float(found[2] or 1)
    if factor == 0:
        raise ValueError(f"learning_rate is {text!r}; the factor must be above 0.")
    return float(f"{rate / factor if found[1] == '/' else rate * factor:.3g}")
