"""Names: those that are unknown, and those that files can be called by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

PART = re.compile(r"\w[\w.=+@,-]{0,99}")  # of a path, on every system


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
