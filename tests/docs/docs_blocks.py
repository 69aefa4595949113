"""Code blocks of pages: what language, whose, and what they say."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
PAGES = [path for path in PAGES if path.name not in ("commands.md", "leaderboard.md")]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block. `is_theirs`: code of another project, shown beside ours and not run here."""

    language: str
    is_theirs: bool
    text: str


def blocks_of(path: Path) -> Iterator[Block]:
    """The blocks of a page, in order, also those in tabs."""
    for _, head, text in FENCE.findall(path.read_text()):
        language, _, rest = head.partition(" ")
        yield Block(language, rest == 'title="theirs"', textwrap.dedent(text))


def name_of(path: Path) -> str:
    """A page, for people."""
    return path.relative_to(ROOT).as_posix()
