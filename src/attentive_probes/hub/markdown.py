"""Untrusted text in model cards, escaped: it is read as text, whatever is in it."""

from __future__ import annotations

import html
import re
import unicodedata

SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.)")


def one_line(text: object) -> str:
    """A text in one line, without what controls a terminal or turns the direction of writing."""
    kept = (" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(text))
    return " ".join("".join(kept).split())


def plain(text: object) -> str:
    """A text that Markdown and HTML show as it is, also in a table."""
    return SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))


def code(text: object) -> str:
    """A text between backticks, also in a table."""
    return "`" + one_line(text).replace("`", "'").replace("|", "\\|") + "`"
