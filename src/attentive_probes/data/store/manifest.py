"""What a token store holds, in one file of plain values that says so itself if it is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attentive_probes.data.store.encoding import ENCODINGS, bytes_per_token
from attentive_probes.files.fingerprint import fingerprint_of
from attentive_probes.files.untrusted import fits
from attentive_probes.files.writing import write_whole

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
ITEM = re.compile(r"[a-z]+@[\w:-]+")  # a kind of token at a tap, a part of file names
FILE = re.compile(r"(shard-\d+/)?\w[\w@.-]*")  # inside the folder, nowhere else
MAX_COUNTS = {"num_images": 10**10, "views": 10**5, "shard_size": 10**9}  # more is no cache


@dataclass
class Manifest:
    """What a store holds.

    Args:
        items: Item such as `patches@last` -> number of tokens T and width D.
        grids: Tap -> rows and columns of its patch grid.
        num_images: Number of images N; row `v * N + places[i]` is view v of image i.
        views: Number of views per image.
        encoding: How tokens are stored.
        shard_size: Rows per shard.
        key: Everything the tokens depend on; a store with another key is another store.
        error: Relative error of the encoding, on a sample, per item.
        is_mixed: Whether images lie in a fixed random order, so that neighbours on the disk are no neighbours in the
            data; else in their own.
        files: Path of each file -> its bytes and its checksum; empty in stores of earlier releases.
        schema_version: Version of this layout.
    """

    items: dict[str, tuple[int, int]]
    grids: dict[str, tuple[int, int]]
    num_images: int
    views: int
    encoding: str
    shard_size: int
    key: dict[str, Any]
    error: dict[str, float] = field(default_factory=dict)
    is_mixed: bool = False
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def num_rows(self) -> int:
        """Number of stored rows: images times views."""
        return self.num_images * self.views

    @cached_property
    def order(self) -> np.ndarray:
        """The images `(N,)` in the order in which they lie on the disk."""
        if not self.is_mixed:
            return np.arange(self.num_images)
        return np.random.default_rng(self.num_images).permutation(self.num_images)

    @property
    def places(self) -> np.ndarray:
        """Where each image `(N,)` lies."""
        places = np.empty(self.num_images, np.int64)
        places[self.order] = np.arange(self.num_images)
        return places

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_rows // self.shard_size)

    @property
    def bytes_per_row(self) -> int:
        """Bytes that one view of one image takes."""
        return self.bytes_per_row_of(self.items)

    def bytes_per_row_of(self, items: Iterable[str]) -> int:
        """Bytes that some items of one view of one image take."""
        shapes = [self.items[item] for item in items]
        return sum(tokens * bytes_per_token(self.encoding, width) for tokens, width in shapes)

    def save(self, path: Path) -> None:
        """Write it in one step, with a checksum of itself."""
        content = asdict(self)
        write_whole(path, json.dumps({**content, "checksum": _checksum(content)}, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what `save` wrote.

        Raises:
            ValueError: If it is no manifest, of another version, or not as it was written; the text names the file.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
            version = content.get("schema_version")
            if version != SCHEMA_VERSION:
                raise ValueError(f"its schema version is {version}, this is {SCHEMA_VERSION}")
            checksum = content.pop("checksum", None)
            if checksum is not None and checksum != _checksum(content):
                raise ValueError("its checksum is another one")
            if unknown := sorted(content.keys() - {f.name for f in fields(cls)}):
                raise ValueError(f"it has unknown entries {unknown}")
            manifest = cls(**content)
            manifest._check()
        except Exception as error:  # whatever an untrusted file can cause
            raise ValueError(f"{path} is damaged, or no manifest of a token cache: {error}.") from error
        return manifest

    def _check(self) -> None:
        for name, most in MAX_COUNTS.items():
            _check_count(name, getattr(self, name), most)
        if self.encoding not in ENCODINGS:
            raise ValueError(f"its encoding is {self.encoding!r}")
        if not self.items or not all(ITEM.fullmatch(item) for item in self.items):
            raise ValueError(f"its items are {list(self.items)}")
        for name, pairs in (("items", self.items), ("grids", self.grids)):
            for key, (first, second) in pairs.items():
                _check_count(f"{name}.{key}", first, 10**7)
                _check_count(f"{name}.{key}", second, 10**7)
        taps = {item.partition("@")[2] for item in self.items}
        if not isinstance(self.key, dict) or not taps <= self.grids.keys():
            raise ValueError("its key or its grids are incomplete")
        if not fits(self.error, dict[str, float]):
            raise ValueError("its errors are no numbers")
        if not fits(self.key.get("items", []), list[str]) or not fits(self.key.get("unreadable", 0), int):
            raise ValueError("its key is not that of a token cache")
        if wrong := [path for path in self.files if not FILE.fullmatch(path)]:
            raise ValueError(f"its files include {wrong[0]!r}, which is not part of a token cache")
        self.files = {str(path): (int(size), str(checksum)) for path, (size, checksum) in self.files.items()}


def _check_count(name: str, value: Any, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {value!r}, no whole number from 1 to {most:,}")


def _checksum(content: dict[str, Any]) -> str:
    return fingerprint_of(json.loads(json.dumps(content)))
