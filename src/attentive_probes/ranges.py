"""Numbers that users type: each has a range, and no number at all is none of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Which numbers are allowed.

    Args:
        low: The least.
        high: The largest.
        whole: Whether it must be a whole number.
        above: Whether `low` itself is too small.
        below: Whether `high` itself is too large.
        optional: Whether `None` is allowed.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False
    optional: bool = False

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        if self.whole and not isinstance(value, int):
            return False
        return (value > self.low if self.above else value >= self.low) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'below' if self.below else 'at most'} {self.high:g}")
        text = f"a {'whole' if self.whole else 'finite'} number {'of ' if parts else ''}{' and '.join(parts)}".strip()
        return f"{text}, or null" if self.optional else text


COUNT = Range(1, 10**9, whole=True)
OPTIONAL_COUNT = COUNT._replace(optional=True)
NOT_NEGATIVE = Range(0)
OPTIONAL_NOT_NEGATIVE = Range(0, optional=True)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, below=True)
SEED = Range(0, 2**31, whole=True)  # numpy and torch take more, but not the sum with the number of a process
OPTIONAL_SEED = SEED._replace(optional=True)


def check_ranges(values: object, ranges: Mapping[str, Range]) -> None:
    """Check attributes of an object, or the entries of a mapping.

    Raises:
        ValueError: If one is out of its range; the text names it.
    """
    for name, allowed in ranges.items():
        value: Any = values[name] if isinstance(values, Mapping) else getattr(values, name)
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it must be {allowed}.")
