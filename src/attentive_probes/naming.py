"""Error texts for unknown names: say what was wrong and what would have been right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(what: str, name: str, valid: Iterable[str]) -> str:
    """A sentence that names the unknown `name`, the nearest valid one if there is any, and all valid ones."""
    valid = sorted(valid)
    nearest = get_close_matches(str(name), valid, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {what} {name!r}.{hint} Valid: {', '.join(valid)}."
