"""What is where in a token store: its folder, its shards, their files, and how rows are laid out among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attentive_probes.data.store.encoding import parts_of
from attentive_probes.data.store.manifest import Manifest
from attentive_probes.files.writing import whole_file

# Names of files: of the store, then of a shard; the last ends the names of files that int8 needs.
LABELS = "labels.npy"
CONTENT = "content.npy"
UNREADABLE = "unreadable.npy"
CHECKSUMS = "checksums.json"
SPREAD = ".spread.npy"


class TokenBatch(NamedTuple):
    """Tokens `(B, T, D)` by item of consecutive rows, and which of their images could be read; `None` for all."""

    tokens: Mapping[str, Tensor]
    is_read: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return len(next(iter(self.tokens.values())))


class StoreLayout:
    """The folder of a store and what its manifest says: where rows, shards and files are.

    Args:
        folder: Where the store lives.
        manifest: What it holds.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest
        self._spreads: dict[str, Tensor | None] = {}

    def shard_folder(self, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{shard:06d}"

    def file_in(self, folder: Path, name: str) -> Path:
        """The file of an array in the folder of a shard."""
        return folder / _file_name(name)

    def files_of(self, shard: int) -> dict[str, int]:
        """Name of each file of tokens in a shard -> its bytes."""
        manifest, rows, found = self.manifest, len(self.rows_of(shard)), {}
        for item, (count, width) in manifest.items.items():
            for suffix, (shape, dtype) in parts_of(manifest.encoding, count, width).items():
                found[_file_name(item + suffix)] = rows * math.prod(shape) * dtype.itemsize
        return found

    def rows_of(self, shard: int) -> range:
        """The rows that a shard holds."""
        start = shard * self.manifest.shard_size
        return range(start, min(start + self.manifest.shard_size, self.manifest.num_rows))

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are not there."""
        held = {path.name for path in self.folder.glob("shard-*")}
        return [shard for shard in range(self.manifest.num_shards) if self.shard_folder(shard).name not in held]

    def set_spread(self, item: str, spread: Tensor) -> None:
        """Store the channel spread `(D,)` of an item, which int8 needs."""
        save_array(self.folder / _file_name(item, SPREAD), spread.numpy())
        self._spreads[item] = spread

    def spread(self, item: str) -> Tensor | None:
        """The stored channel spread of an item, if there is one.

        Raises:
            ValueError: If it is damaged.
        """
        if item not in self._spreads:
            path = self.folder / _file_name(item, SPREAD)
            found = torch.from_numpy(read_array(path)) if path.exists() else None
            if found is not None and not (found.shape == (self.manifest.items[item][1],) and found.isfinite().all()):
                raise ValueError(f"{path} is damaged: it should hold a finite number for each channel.")
            self._spreads[item] = found
        return self._spreads[item]


def read_array(path: Path) -> np.ndarray:
    """An array of numbers from a file of its own.

    Raises:
        ValueError: If the file is not an array; the text names it.
    """
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped: a header cannot ask for memory
    except Exception as error:  # whatever an untrusted file can cause
        raise ValueError(f"{path} is damaged, or no array: {error}.") from error


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array of numbers in one step."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def _file_name(item: str, ending: str = ".bin") -> str:
    return item.replace(":", "-") + ending
