"""Which file a table means: a path as it is written, or the one image below its folder that is called so."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from attentive_probes.data.sources.listing import Folder


class FilesOfTable:
    """The images that the rows of a table may name.

    Args:
        table: The table. Paths are relative to its folder; names alone, with or without their ending, may lie deeper:
            in the folder that is called like the table, or else anywhere below.
    """

    def __init__(self, table: Path) -> None:
        self.table = table

    def find(self, path: str) -> str | None:
        """The file or address that a cell means; `None` if there is none.

        Raises:
            ValueError: If several images are called so.
        """
        path = path.strip()
        if path.startswith("file://"):
            path = path.removeprefix("file://")
        if "://" in path:
            return path
        for name in dict.fromkeys((path, path.replace("\\", "/"))):  # as Windows writes it
            near = self.table.parent / name
            for place in (near, Path(name)):
                if place.is_file():
                    return str(place if place is near else place.resolve())
        if PureWindowsPath(path).is_absolute() or PurePosixPath(path).is_absolute():
            return None  # of another machine
        found = self._by_name.get(os.path.basename(path.replace("\\", "/")), [])
        inside = [one for one in found if self.table.stem in Path(one).parts] or found
        if len(inside) > 1:
            raise ValueError(f"{self.table} names the image {path!r}, of which there are {inside[0]} and {inside[1]}.")
        return inside[0] if inside else None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Name of a file, with and without its ending -> where images of that name lie."""
        found: dict[str, list[str]] = {}
        for image in Folder.of(self.table.parent).images():
            name = os.path.basename(image)
            for key in {name, os.path.splitext(name)[0]}:
                found.setdefault(key, []).append(image)
        return found
