"""Writing one shard of a token store, batch by batch: what a killed process had written is gone on from.

Whoever writes a shard holds its lock, so that processes and runs share the shards of a store. What lies there of a
shard whose lock is free was left by the dead.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from attentive_probes.data.store.encoding import encode
from attentive_probes.data.store.store_layout import CHECKSUMS, UNREADABLE, StoreLayout, TokenBatch, save_array
from attentive_probes.files.checksums import Checksum, checksum_of
from attentive_probes.files.writing import NotWritten, sync, write_whole

PROGRESS = "progress.json"
LOCKS = ".locks"
SECONDS = 30  # of work that a loss of power may cost


class ShardWriter:
    """Writes the rows of a shard in order; the shard appears when it is whole.

    Args:
        store: The store.
        shard: Number of the shard.
        lock: The lock of the shard, held; it is released at the end.

    Attributes:
        num_rows: Rows that are written, by an earlier process to begin with.
    """

    def __init__(self, store: StoreLayout, shard: int, lock: FileLock):
        self.store, self.shard, self.target, self._lock = store, shard, store.shard_folder(shard), lock
        self.folder = self.target.with_name(f"{self.target.name}.partial")
        self.num_rows, self._unreadable = 0, list[int]()
        self._files: dict[str, IO[bytes]] = {}
        self._checksums: dict[str, Checksum] = {}
        self._complete: dict[str, list[Any]] = {}  # bytes and checksum of each file after the last whole batch
        self._saved = time.monotonic()
        self._adopt()

    @classmethod
    def claim(cls, store: StoreLayout, shard: int) -> ShardWriter | None:
        """The writer of a shard, with what is left of it; `None` if another process writes it, or it is there."""
        lock = lock_of(store, store.shard_folder(shard).name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        if store.shard_folder(shard).exists():  # written since it was looked for
            release(lock)
            return None
        return cls(store, shard, lock)

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
                content = np.ascontiguousarray(array).view(np.uint8).reshape(-1).data
                self._write(item + suffix, content)
        if batch.is_read is not None:
            self._unreadable += (self.num_rows + np.flatnonzero(~batch.is_read.numpy())).tolist()
        self.num_rows += batch.num_rows
        self._complete = {name: [found.size, found.text] for name, found in self._checksums.items()}
        if time.monotonic() - self._saved > SECONDS:
            self._save_progress()

    def finish(self) -> None:
        """Make the shard appear, with the checksums of its files."""
        self._save_progress()
        files = dict(self._complete)
        if self._unreadable:
            save_array(self.folder / UNREADABLE, np.asarray(self._unreadable))
            files[UNREADABLE] = [(self.folder / UNREADABLE).stat().st_size, checksum_of(self.folder / UNREADABLE)]
        write_whole(self.folder / CHECKSUMS, json.dumps(files))
        self.close()
        (self.folder / PROGRESS).unlink()
        os.replace(self.folder, self.target)
        sync(self.store.folder)
        release(self._lock)

    def pause(self) -> None:
        """Keep what is written for whoever goes on."""
        with suppress(OSError):  # a full disk, of which somebody else tells
            if self._files:
                self._save_progress()
        self.close()
        self._lock.release()

    def _adopt(self) -> None:
        """Take over what an earlier process left, as far as it is sure to be on the disk, and right."""
        try:
            progress = json.loads((self.folder / PROGRESS).read_text("utf-8"))
            for name, (size, checksum) in progress["files"].items():
                self._checksums[name] = found = Checksum.of(self.folder / name, size)
                if found.text != checksum:
                    raise ValueError(f"{name} has changed")
            self.num_rows, self._unreadable = progress["rows"], progress["unreadable"]
            self._complete = progress["files"]
        except (OSError, ValueError, TypeError, KeyError):
            self._checksums = {}
            for path in self.store.folder.glob(f"{self.target.name}.partial*"):
                shutil.rmtree(path, ignore_errors=True)

    def _write(self, name: str, content: Any) -> None:
        path = self.store.file_in(self.folder, name)
        try:
            if path.name not in self._files:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._checksums.setdefault(path.name, Checksum())
                file = self._files[path.name] = path.open("r+b" if self.num_rows else "wb")
                file.seek(self._checksums[path.name].size)
                file.truncate()
            self._files[path.name].write(content)
        except OSError as error:
            raise NotWritten(path, error) from error
        self._checksums[path.name].update(content)

    def _save_progress(self) -> None:
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NotWritten(self.folder, error) from error
        content = {"rows": self.num_rows, "unreadable": self._unreadable, "files": self._complete}
        write_whole(self.folder / PROGRESS, json.dumps(content))
        self._saved = time.monotonic()

    def close(self) -> None:
        """Close the files."""
        files, self._files = self._files, {}
        for file in files.values():
            with suppress(OSError):
                file.close()


def release(lock: FileLock) -> None:
    """Give up the lock of a shard that is there, for good: whoever gets it after all finds the shard."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def lock_of(store: StoreLayout, name: str) -> FileLock:
    """A lock among all who build a store; it ends with the process that holds it, however that ends."""
    folder = store.folder / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")
