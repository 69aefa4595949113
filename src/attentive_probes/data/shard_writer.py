"""Writing one shard of a token store, batch by batch: what a killed process had written is gone on from."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from attentive_probes.data.encoding import encode, parts_of

if TYPE_CHECKING:
    from attentive_probes.data.token_store import TokenBatch, TokenStore

PROGRESS = "progress.json"
UNREADABLE = "unreadable.npy"
SECONDS = 30  # of work that a loss of power may cost


class ShardWriter:
    """Writes the rows of a shard in order; the shard appears when it is whole.

    Args:
        store: The store.
        shard: Number of the shard.
        left: What earlier processes left of it.

    Attributes:
        num_rows: Rows that are written, by an earlier process to begin with.
    """

    def __init__(self, store: TokenStore, shard: int, left: Sequence[Path] = ()):
        self.store, self.shard, self.target = store, shard, store.shard_folder(shard)
        self.folder = self.target.with_name(f"{self.target.name}.partial-{os.getpid()}")
        self.num_rows, self._unreadable = 0, list[int]()
        self._files: dict[str, IO[bytes]] = {}
        self._saved = time.monotonic()
        self._adopt(left)

    @classmethod
    def of(cls, store: TokenStore, shards: Sequence[int]) -> list[ShardWriter]:
        """The writers of some shards, with what is left of each."""
        left: dict[str, list[Path]] = {}
        for path in sorted(store.folder.glob("shard-*.partial-*")):
            left.setdefault(path.name.partition(".")[0], []).append(path)
        return [cls(store, shard, left.get(store.shard_folder(shard).name, ())) for shard in shards]

    def add(self, batch: TokenBatch) -> None:
        """Write the next rows.

        Raises:
            ValueError: If a token is no finite number, or does not fit the encoding.
        """
        for item, tokens in batch.tokens.items():
            try:
                arrays = encode(tokens, self.store.manifest.encoding, self.store.spread(item))
            except ValueError as error:
                raise ValueError(f"Shard {self.shard} of the token cache, {item}: {error}") from error
            for suffix, array in arrays.items():
                self._file(item + suffix).write(np.ascontiguousarray(array).data)
        if batch.is_read is not None:
            self._unreadable += (self.num_rows + np.flatnonzero(~batch.is_read.numpy())).tolist()
        self.num_rows += batch.num_rows
        if time.monotonic() - self._saved > SECONDS:
            self._save_progress()

    def finish(self) -> None:
        """Make the shard appear."""
        self._save_progress()
        self._close_files()
        (self.folder / PROGRESS).unlink()
        if self._unreadable:
            np.save(self.folder / UNREADABLE, np.asarray(self._unreadable))
        os.replace(self.folder, self.target)

    def pause(self) -> None:
        """Keep what is written for whoever goes on."""
        if self._files:
            self._save_progress()
            self._close_files()

    def _adopt(self, left: Sequence[Path]) -> None:
        """Take over what an earlier process left, as far as it is sure to be on the disk."""
        kept = next((path for path in left if (path / PROGRESS).exists()), None)
        for path in left:
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)
        if kept is not None:
            os.replace(kept, self.folder)
            progress = json.loads((self.folder / PROGRESS).read_text())
            self.num_rows, self._unreadable = progress["rows"], progress["unreadable"]

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.store.file_in(self.folder, name)
            self._files[name] = path.open("r+b" if self.num_rows else "wb")
            self._files[name].seek(self.num_rows * self._bytes_per_row(name))
            self._files[name].truncate()
        return self._files[name]

    def _bytes_per_row(self, name: str) -> int:
        manifest = self.store.manifest
        sizes = {
            item + suffix: int(np.prod(shape)) * dtype.itemsize
            for item, (count, width) in manifest.items.items()
            for suffix, (shape, dtype) in parts_of(manifest.encoding, count, width).items()
        }
        return sizes[name]

    def _save_progress(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{self.folder / PROGRESS}.partial")
        partial.write_text(json.dumps({"rows": self.num_rows, "unreadable": self._unreadable}))
        os.replace(partial, self.folder / PROGRESS)
        self._saved = time.monotonic()

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
