"""Tokens on disk: shards of raw arrays that are mapped into memory, and one manifest that says what they are."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attentive_probes.data.store.encoding import decode, parts_of
from attentive_probes.data.store.integrity import find_damage
from attentive_probes.data.store.manifest import MANIFEST, Manifest
from attentive_probes.data.store.read_rows import ShardFiles
from attentive_probes.data.store.shard_writer import ShardWriter
from attentive_probes.data.store.store_layout import (
    CHECKSUMS,
    CONTENT,
    LABELS,
    SPREAD,
    UNREADABLE,
    StoreLayout,
    TokenBatch,
    read_array,
    save_array,
)
from attentive_probes.files.checksums import checksum_of


class TokenStore(StoreLayout):
    """A folder of shards. A shard appears when it is whole; a killed build goes on where it stopped.

    Args:
        folder: Where it lives.
        manifest: What it holds.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        super().__init__(folder, manifest)
        self._files = ShardFiles(self)

    @classmethod
    def open(cls, folder: str | os.PathLike, verify: str = "open") -> TokenStore:
        """Open a complete store.

        Args:
            folder: Where it lives.
            verify: How its files are checked; see `find_damage`.

        Raises:
            ValueError: If there is none, it is incomplete, damaged, of another version, or holds numbers that are not
                finite.
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise ValueError(f"There is no complete token cache in {str(folder)!r}; build it first.")
        store = cls(Path(folder), Manifest.read(path))
        overflowed = [item for item, error in store.manifest.error.items() if not math.isfinite(error)]
        if overflowed:
            raise ValueError(
                f"The token cache {str(folder)!r} holds numbers of {overflowed} that overflowed; remove it and build "
                "it with encoding bfloat16 or float32."
            )
        wrong = find_damage(store, verify)
        for name, cause in wrong.items():
            more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
            raise ValueError(
                f"The token cache {str(folder)!r} is damaged: {name} {cause}{more}. The run that built it computes "
                "what is damaged again; or remove the folder."
            )
        return store

    def finish(self, labels: np.ndarray, content: np.ndarray) -> None:
        """Write labels, a hash of the content of each image, and the manifest: from now on the store is complete."""
        files: dict[str, tuple[int, str]] = {}
        rows = []
        for shard in range(self.manifest.num_shards):
            folder = self.shard_folder(shard)
            held = json.loads((folder / CHECKSUMS).read_text("utf-8"))
            files |= {f"{folder.name}/{name}": (size, checksum) for name, (size, checksum) in held.items()}
            if UNREADABLE in held:
                rows.append(self.rows_of(shard).start + read_array(folder / UNREADABLE))
        arrays = {LABELS: labels, CONTENT: content}
        if rows:
            arrays[UNREADABLE] = np.unique(self.manifest.order[np.concatenate(rows) % self.manifest.num_images])
        for name, array in arrays.items():
            save_array(self.folder / name, array)
        for name in [*arrays, *(path.name for path in self.folder.glob(f"*{SPREAD}"))]:
            path = self.folder / name
            files[name] = (path.stat().st_size, checksum_of(path))
        self.manifest.files = files
        self.manifest.save(self.folder / MANIFEST)

    def labels(self) -> Tensor:
        """Targets of the images, `(N,)` or `(N, C)`."""
        return torch.from_numpy(read_array(self.folder / LABELS))

    def content(self) -> np.ndarray:
        """A hash `(N,)` of the content of each image; empty if the store does not know."""
        path = self.folder / CONTENT
        return read_array(path) if path.exists() else np.empty(0, np.uint64)

    def write_shard(self, shard: int, batches: Iterable[TokenBatch]) -> None:
        """Write one shard, or what is left of it, from batches in order of rows.

        Raises:
            ValueError: If a token is no finite number, or does not fit the encoding, or the shard is not to be written.
        """
        writer = ShardWriter.claim(self, shard)
        if writer is None:
            raise ValueError(f"Shard {shard} of {str(self.folder)!r} is there, or somebody else is writing it.")
        for batch in batches:
            writer.add(batch)
        writer.finish()

    def unreadable(self) -> np.ndarray:
        """The images that could not be read and hold no tokens."""
        path = self.folder / UNREADABLE
        return read_array(path) if path.exists() else np.empty(0, np.int64)

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
