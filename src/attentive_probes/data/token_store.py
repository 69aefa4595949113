"""Tokens on disk: shards of raw arrays that are mapped into memory, and one manifest that says what they are."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attentive_probes.data.encoding import bytes_per_token, decode, parts_of
from attentive_probes.data.shard_files import ShardFiles
from attentive_probes.data.shard_writer import UNREADABLE, ShardWriter

MANIFEST = "manifest.json"
LABELS = "labels.npy"
CONTENT = "content.npy"
SCHEMA_VERSION = 1


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


class TokenBatch(NamedTuple):
    """Tokens `(B, T, D)` by item of consecutive rows, and which of their images could be read; `None` for all."""

    tokens: Mapping[str, Tensor]
    is_read: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return len(next(iter(self.tokens.values())))


class TokenStore:
    """A folder of shards. A shard appears when it is whole; a killed build goes on where it stopped.

    Args:
        folder: Where it lives.
        manifest: What it holds.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest
        self._files = ShardFiles(self)
        self._spreads: dict[str, Tensor | None] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike) -> TokenStore:
        """Open a complete store.

        Raises:
            ValueError: If there is none, it is incomplete, of another version, or holds numbers that are not finite.
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise ValueError(f"There is no complete token cache in {str(folder)!r}; build it first.")
        content = json.loads(path.read_text())
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {version}, this is {SCHEMA_VERSION}.")
        try:
            store = cls(Path(folder), Manifest(**content))
        except TypeError as error:
            raise ValueError(f"{path} is no manifest of a token cache: {error}") from error
        overflowed = [item for item, error in store.manifest.error.items() if not math.isfinite(error)]
        if overflowed:
            raise ValueError(
                f"The token cache {str(folder)!r} holds numbers of {overflowed} that overflowed; remove it and build "
                "it with encoding bfloat16 or float32."
            )
        if missing := store.missing_shards():
            raise ValueError(f"The token cache {str(folder)!r} lacks {len(missing)} shards; build it again.")
        return store

    def finish(self, labels: np.ndarray, content: np.ndarray) -> None:
        """Write labels, a hash of the content of each image, and the manifest: from now on the store is complete."""
        rows = [self.rows_of(shard).start + np.load(path) for shard in range(self.manifest.num_shards)
                if (path := self.shard_folder(shard) / UNREADABLE).exists()]  # fmt: skip
        if rows:
            images = self.manifest.order[np.concatenate(rows) % self.manifest.num_images]
            np.save(self.folder / UNREADABLE, np.unique(images))
        np.save(self.folder / LABELS, labels)
        np.save(self.folder / CONTENT, content)
        temporary = self.folder / f"{MANIFEST}.partial"
        temporary.write_text(json.dumps(asdict(self.manifest), indent=2) + "\n")
        os.replace(temporary, self.folder / MANIFEST)

    def labels(self) -> Tensor:
        """Targets of the images, `(N,)` or `(N, C)`."""
        return torch.from_numpy(np.load(self.folder / LABELS))

    def content(self) -> np.ndarray:
        """A hash `(N,)` of the content of each image; empty if the store does not know."""
        path = self.folder / CONTENT
        return np.load(path) if path.exists() else np.empty(0, np.uint64)

    def rows_of(self, shard: int) -> range:
        """The rows that a shard holds."""
        start = shard * self.manifest.shard_size
        return range(start, min(start + self.manifest.shard_size, self.manifest.num_rows))

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [shard for shard in range(self.manifest.num_shards) if not self.shard_folder(shard).is_dir()]

    def write_shard(self, shard: int, batches: Iterable[TokenBatch]) -> None:
        """Write one shard, or what is left of it, from batches in order of rows.

        Raises:
            ValueError: If a token is no finite number, or does not fit the encoding.
        """
        (writer,) = ShardWriter.of(self, [shard])
        for batch in batches:
            writer.add(batch)
        writer.finish()

    def unreadable(self) -> np.ndarray:
        """The images that could not be read and hold no tokens."""
        path = self.folder / UNREADABLE
        return np.load(path) if path.exists() else np.empty(0, np.int64)

    def set_spread(self, item: str, spread: Tensor) -> None:
        """Store the channel spread `(D,)` of an item, which int8 needs."""
        np.save(self.folder / _file_name(item, ".spread.npy"), spread.numpy())

    def spread(self, item: str) -> Tensor | None:
        """The stored channel spread of an item, if there is one."""
        if item not in self._spreads:
            path = self.folder / _file_name(item, ".spread.npy")
            self._spreads[item] = torch.from_numpy(np.load(path)) if path.exists() else None
        return self._spreads[item]

    def read(self, item: str, rows: np.ndarray) -> dict[str, Tensor]:
        """The stored arrays of an item at `rows` `(B,)`, by suffix; the disk is read in order of rows."""
        num_tokens, width = self.manifest.items[item]
        return {
            suffix: torch.from_numpy(self._files.read(item + suffix, rows, shape, dtype))
            for suffix, (shape, dtype) in parts_of(self.manifest.encoding, num_tokens, width).items()
        }

    def decode(self, item: str, arrays: dict[str, Tensor]) -> Tensor:
        """Tokens `(B, T, D)` from what `read` gave."""
        return decode(arrays, self.manifest.encoding, self.spread(item))

    def shard_folder(self, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{shard:06d}"

    def file_in(self, folder: Path, name: str) -> Path:
        """The file of an array in the folder of a shard."""
        return folder / _file_name(name)


def _file_name(item: str, ending: str = ".bin") -> str:
    return item.replace(":", "-") + ending
