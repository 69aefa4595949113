"""What lies in a folder of token caches: to look at, and to remove."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from attentive_probes.data.store.integrity import find_damage
from attentive_probes.data.store.manifest import MANIFEST, Manifest
from attentive_probes.data.store.token_store import TokenStore
from attentive_probes.data.token_cache import CachePart, held_as
from attentive_probes.files.fingerprint import fingerprint_of

logger = logging.getLogger(__name__)
# What may differ between a cache and what is needed of it.
OF_THE_IMAGES = ("images", "labels", "unreadable", "items", "shard_size")


@dataclass(frozen=True)
class StoredCache:
    """A token cache on the disk.

    Args:
        folder: Where it lies; its name is its fingerprint.
        manifest: What it holds; `None` for one that is unfinished or damaged.
        num_bytes: What it takes.
        changed: When it was changed last, in seconds since 1970.
        problem: Why there is no manifest.
    """

    folder: Path
    manifest: Manifest | None
    num_bytes: int
    changed: float
    problem: str = ""

    @property
    def backbone(self) -> str:
        """What is known of its backbone: the hash of its weights."""
        return "" if self.manifest is None else str(self.manifest.key.get("weights", ""))[:8]

    @property
    def day(self) -> str:
        """The day of its last change."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.changed))


def list_caches(folder: Path) -> list[StoredCache]:
    """The token caches below a folder, the newest first; folders of anything else are left aside.

    Raises:
        ValueError: If there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r} of token caches; name one with --folder.")
    found = [_look(path) for path in folder.iterdir() if path.is_dir() and _is_cache(path)]
    return sorted(found, key=lambda cache: -cache.changed)


def find_cache(folder: Path, name: str) -> StoredCache:
    """The one cache whose fingerprint begins with a name.

    Raises:
        ValueError: If there is none, or several.
    """
    known = list_caches(folder)
    found = [cache for cache in known if cache.folder.name.startswith(name)]
    if not name or len(found) != 1:
        names = [cache.folder.name[:12] for cache in found or known]
        raise ValueError(f"{len(found)} caches in {str(folder)!r} begin with {name!r}; name one of {names}.")
    return found[0]


def remove_cache(cache: StoredCache) -> None:
    """Remove a cache, its manifest first, so that a removal that is killed leaves no cache behind."""
    (cache.folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(cache.folder)


def _is_cache(path: Path) -> bool:
    return (path / MANIFEST).exists() or any(path.glob("shard-*"))


def _look(path: Path) -> StoredCache:
    files = [file for file in path.rglob("*") if file.is_file()]
    size, changed = sum(file.stat().st_size for file in files), max((f.stat().st_mtime for f in files), default=0.0)
    try:
        return StoredCache(path, TokenStore.open(path, "never").manifest, size, changed)
    except ValueError as error:
        return StoredCache(path, None, size, changed, str(error))


def find_held(
    folder: Path, key: Mapping[str, Any], content: np.ndarray, labels: Tensor, verify: str = "open"
) -> tuple[Path, CachePart] | None:
    """The cache below a folder that holds all images and items of a key, made in the same way, and where.

    Args:
        folder: Where caches live.
        key: Everything that the tokens depend on.
        content: A hash `(N,)` of the content of each image.
        labels: Their targets.
        verify: How the files of what is found are checked; a damaged cache is passed over.
    """
    wanted = _way(key)
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            store = TokenStore.open(path.parent, "never")
        except ValueError as error:  # another one's damage is no reason to stop
            logger.warning("Passed over: %s", error)
            continue
        stored = store.manifest.key
        items = [held_as(item, stored.get("items", ())) for item in key["items"]]
        if _way(stored) != wanted or None in items:
            continue
        rows = rows_of(store.content(), content)
        if rows is not None and (wrong := find_damage(store, verify)):
            logger.warning("Passed over, as damaged: %s, %s.", path.parent, next(iter(wrong)))
        elif rows is not None:
            distinct = [item for item in dict.fromkeys(items) if item is not None]
            return path.parent, CachePart(labels, rows, distinct, key["unreadable"])
    return None


def rows_of(held: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Where each of `wanted` `(N,)` lies in `held`; `None` if one does not."""
    if not len(held):
        return None
    order = np.argsort(held, kind="stable")
    places = np.minimum(np.searchsorted(held[order], wanted), len(held) - 1)
    rows = order[places]
    return rows if np.array_equal(held[rows], wanted) else None


def _way(key: Mapping[str, Any]) -> str:
    return fingerprint_of({name: value for name, value in key.items() if name not in OF_THE_IMAGES})
