"""What lies in a folder of token caches: to look at, and to remove."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from attentive_probes.data.manifest import MANIFEST, Manifest
from attentive_probes.data.token_store import TokenStore


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
    """Remove a cache, its manifest first, so that what a kill leaves is none.

    Raises:
        OSError: If a file cannot be removed.
    """
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
