"""Caches that hold what is needed already: of more images, more items, or the same images in another order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from attentive_probes.data.damage import find_damage
from attentive_probes.data.manifest import MANIFEST
from attentive_probes.data.token_cache import CachePart, held_as
from attentive_probes.data.token_store import TokenStore
from attentive_probes.fingerprint import fingerprint_of

logger = logging.getLogger(__name__)
# What may differ between a cache and what is needed of it.
OF_THE_IMAGES = ("images", "labels", "unreadable", "items", "shard_size")


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
