"""What lies in a folder, listed once: names in order, without hidden files and what programs leave behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attentive_probes.data.pixels.decode import image_endings

logger = logging.getLogger(__name__)
# What file managers, archivers and notebooks leave behind; whatever begins with a dot is hidden anyway.
LEFTOVERS = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "__pycache__", "$recycle.bin",
    "system volume information", "lost+found", "lost.dir",
}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """A folder and all that is below it; links are followed, but none to a folder that it lies in.

    Args:
        path: Where it is.
        entries: Names in order, each with the folder of that name, or `None` for a file.
    """

    path: str
    entries: tuple[tuple[str, Folder | None], ...]

    @classmethod
    def of(cls, path: str | os.PathLike, above: frozenset[str] = frozenset()) -> Folder:
        """List a folder that was reached through the folders `above`, by their real paths."""
        path = os.fspath(path)
        here = os.path.realpath(path)
        inside = above | {here, *map(str, Path(here).parents)}
        with os.scandir(path) as found:
            shown = [entry for entry in found if not _is_leftover(entry.name)]
        entries: list[tuple[str, Folder | None]] = []
        for entry in sorted(shown, key=lambda entry: entry.name):
            if not entry.is_dir():
                entries += [(entry.name, None)] if entry.is_file() else []
            elif not (entry.is_symlink() and os.path.realpath(entry.path) in inside):
                entries.append((entry.name, cls.of(entry.path, inside)))
        return cls(path, tuple(entries))

    @property
    def name(self) -> str:
        """Its own name."""
        return Path(self.path).name

    @property
    def folders(self) -> list[Folder]:
        """The folders directly in it."""
        return [folder for _, folder in self.entries if folder is not None]

    def files(self) -> Iterator[str]:
        """Paths of all files below it, in order."""
        for name, folder in self.entries:
            if folder is None:
                yield os.path.join(self.path, name)
            else:
                yield from folder.files()

    def images(self) -> Iterator[str]:
        """Paths of all files below it that have the ending of an image, in order."""
        endings = image_endings()
        return (path for path in self.files() if ending_of(path) in endings)

    def class_folders(self) -> list[Folder]:
        """The folders directly in it that hold an image, however deep."""
        return [folder for folder in self.folders if next(folder.images(), None) is not None]

    def has(self, name: str) -> bool:
        """Whether a file or folder of that name is directly in it."""
        return any(name == other for other, _ in self.entries)


def readable(path: str | os.PathLike) -> str:
    r"""A path as text that every file can hold: bytes of a name that are no UTF-8 are written `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def with_readable_names(paths: Iterable[str]) -> list[str]:
    """The paths whose names are UTF-8, which a table of images can hold; the others are counted in a warning."""
    found, odd = list[str](), list[str]()
    for path in paths:
        (found if readable(path) == path else odd).append(path)
    if odd:
        logger.warning(
            "%d files are left out, for their names are no UTF-8, the first: %s. Rename them.",
            len(odd),
            readable(odd[0]),
        )
    return found


def ending_of(path: str) -> str:
    """The ending of a file in small letters, with its dot; empty if it has none."""
    return os.path.splitext(path)[1].lower()


def _is_leftover(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in LEFTOVERS
