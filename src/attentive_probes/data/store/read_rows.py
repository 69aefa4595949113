"""Reading rows out of the files of a token store, few of which are open at a time."""

from __future__ import annotations

import os
from collections import OrderedDict

import numpy as np

from attentive_probes.data.store.store_layout import StoreLayout

OPEN_FILES = 64  # of a store, at most; systems allow 256 or more per process
SMALL_ROW = 2**14  # bytes, below which a mapped file is faster than a call per row


class ShardFiles:
    """The files of a store, opened when they are asked for; the last ones used stay open.

    Args:
        store: The store.
    """

    def __init__(self, store: StoreLayout):
        self.store = store
        self._open: OrderedDict[tuple[int, str], np.memmap] = OrderedDict()  # the last ones used come last

    def read(self, name: str, rows: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Rows `(B,)` of an array of the store, in their order: `(B, *shape)`."""
        out = np.empty((len(rows), *shape), dtype)
        order = np.argsort(rows, kind="stable")
        size = self.store.manifest.shard_size
        shards = rows[order] // size
        for shard in np.unique(shards).tolist():
            places = order[shards == shard]
            inside = rows[places] - shard * size
            if out.nbytes < SMALL_ROW * len(rows) or not hasattr(os, "preadv"):
                out[places] = self._mapped(shard, name, shape, dtype)[inside]
            else:
                self._copy(shard, name, inside, out, places)
        return out

    def _copy(self, shard: int, name: str, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Read rising rows of a shard to their places; other threads run meanwhile."""
        size = out.nbytes // len(out)
        path = self.store.file_in(self.store.shard_folder(shard), name)
        with path.open("rb", buffering=0) as file:
            for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                found = os.preadv(file.fileno(), [out[place].view(np.uint8)], row * size)
                if found != size:
                    raise ValueError(f"{path} ends within row {row}; remove the token cache and build it again.")

    def _mapped(self, shard: int, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
        if (shard, name) not in self._open:
            path = self.store.file_in(self.store.shard_folder(shard), name)
            self._open[shard, name] = np.memmap(path, dtype, "r", shape=(len(self.store.rows_of(shard)), *shape))
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end((shard, name))
        return self._open[shard, name]
