"""Checks of what users type: numbers have a range, names are known ones or can be those of files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

# A part of a path, on every system.
PART = re.compile(r"\w[\w.=+@,-]{0,99}")


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


def check_parts(what: str, names: Iterable[str]) -> None:
    """Check that names can be those of folders: one part of a path each, and different ones everywhere.

    Raises:
        ValueError: If one can not, or two differ by their case alone.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not PART.fullmatch(name) or name.endswith("."):
            raise ValueError(
                f"The name {name!r} of a {what} cannot be that of a folder; take up to 100 letters, digits and "
                "._-=+@, beginning with a letter, a digit or _."
            )
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ValueError(
                f"The names {other!r} and {name!r} of a {what} are one folder on many systems; rename one."
            )


def unknown_name(what: str, name: str, valid: Iterable[str]) -> str:
    """A sentence that names the unknown `name`, the nearest valid one if there is any, and all valid ones."""
    valid = sorted(valid)
    nearest = get_close_matches(str(name), valid, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {what} {name!r}.{hint} Valid: {', '.join(valid)}."
