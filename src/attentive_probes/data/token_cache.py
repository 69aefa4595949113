"""The token cache: what a frozen backbone says about a set of images, computed once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
import torch.utils.data
from torch import Tensor

from attentive_probes.backbones import Backbone
from attentive_probes.data.encoding import ENCODINGS
from attentive_probes.data.token_store import TokenStore
from attentive_probes.fingerprint import tensor_fingerprint
from attentive_probes.naming import unknown_name
from attentive_probes.tokens import Reading, ReadingItem, Tokens, kinds_by_tap

KEEP = ("auto", "disk", "memory", "device")
SHARE_OF_MEMORY = 0.3  # of what is free, up to which `auto` keeps the tokens in memory


@dataclass
class CacheOptions:
    """How tokens are cached.

    Args:
        folder: Where caches live; each lies in a subfolder named after everything its tokens depend on.
        encoding: `float32`, `float16`, `bfloat16`, or `int8` (a scale per token, channels evened out).
        views: Augmented views per image; epoch e trains on view `(e - 1) % views`. Without augmentation, 1.
        keep: Where the tokens are while they are read: `disk` (mapped), `memory`, `device`, or `auto`: in memory if
            they take less than a third of what is free.
        shard_size: Images per file.
        batch_size: Images per forward pass of the backbone.
        repository: Dataset repository on the Hub in which to look for a cache before it is computed.

    Raises:
        ValueError: If a value is unknown or out of range.
    """

    folder: str = "outputs/tokens"
    encoding: str = "float16"
    views: int = 1
    keep: str = "auto"
    shard_size: int = 1024
    batch_size: int = 256
    repository: str | None = None

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(unknown_name("encoding", self.encoding, ENCODINGS))
        if self.keep not in KEEP:
            raise ValueError(unknown_name("keep", self.keep, KEEP))
        for name in ("views", "shard_size", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


class TokenCache(torch.utils.data.Dataset):
    """Cached tokens and labels of one split, as a PyTorch dataset that gives whole batches.

    `cache.__getitems__(indices)` is `{"tokens": tap -> Tokens, "labels": ...}`, with rows in the order of the indices.

    Args:
        folder: A complete cache.
        keep: Where to keep the tokens; see `CacheOptions`.
        device: The device of `keep="device"`.

    Attributes:
        num_unreadable: How many images were left out when it was built.
        epoch: Epoch of the training, from 1; it says which view of each image is read.

    Raises:
        ValueError: If the folder holds no complete cache.
    """

    def __init__(self, folder: str | os.PathLike, keep: str = "auto", device: torch.device | str = "cpu"):
        self.store = TokenStore.open(folder)
        self.manifest = self.store.manifest
        self.labels = self.store.labels()
        self.num_unreadable = int(self.manifest.key.get("unreadable", 0))
        self.epoch = 0
        size = self.manifest.bytes_per_row * self.manifest.num_rows
        if keep == "auto":
            keep = "memory" if size < SHARE_OF_MEMORY * psutil.virtual_memory().available else "disk"
        self.keep, self._device = keep, torch.device(device if keep == "device" else "cpu")
        self._kept: dict[str, dict[str, Tensor]] = {}
        if keep != "disk":
            everything = np.arange(self.manifest.num_rows)
            for item in self.manifest.items:
                parts = self.store.read(item, everything)
                self._kept[item] = {suffix: part.to(self._device) for suffix, part in parts.items()}

    def __len__(self) -> int:
        return self.manifest.num_images

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        images = np.asarray(indices, np.int64)
        view = max(self.epoch - 1, 0) % self.manifest.views
        return {"tokens": self._tokens(images + view * len(self)), "labels": self.labels[images]}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])

    def check(self, backbone: Backbone, readings: list[Reading]) -> None:
        """Check that the cache is one of this backbone, and holds what some readings need.

        Raises:
            ValueError: If it was built with other weights, a kind at a tap is missing, or the backbone has an adapter.
        """
        if backbone.adapter is not None:
            raise ValueError("An adapter changes the tokens with every step; train it online, not on a token cache.")
        if self.manifest.key["weights"] != tensor_fingerprint(backbone.state_dict()):
            raise ValueError(
                f"The token cache {str(self.store.folder)!r} was built with other weights than this backbone's; "
                "build it with the same backbone, in the same precision."
            )
        for item in cached_items(readings):
            kind, tap = kind_and_tap(item)
            if item not in self.manifest.items and (kind != "mean" or f"patches@{tap}" not in self.manifest.items):
                raise ValueError(
                    f"The token cache {str(self.store.folder)!r} holds {list(self.manifest.items)}, not {item!r}; "
                    "build it for these heads."
                )

    def _tokens(self, rows: np.ndarray) -> dict[str, Tokens]:
        found: dict[str, dict[str, Tensor]] = {}
        for item in self.manifest.items:
            kind, tap = kind_and_tap(item)
            found.setdefault(tap, {})[kind] = self.store.decode(item, self._read(item, rows))
        return {tap: _assemble(kinds, self.manifest.grids[tap]) for tap, kinds in found.items()}

    def _read(self, item: str, rows: np.ndarray) -> dict[str, Tensor]:
        if item not in self._kept:
            return self.store.read(item, rows)
        places = torch.from_numpy(rows).to(self._device)
        return {suffix: part.index_select(0, places) for suffix, part in self._kept[item].items()}


def _assemble(kinds: dict[str, Tensor], grid: tuple[int, int]) -> Tokens:
    nothing = next(iter(kinds.values()))[:, :0]
    cls, registers, patches = (kinds.get(kind, nothing) for kind in ("cls", "registers", "patches"))
    return Tokens(cls, registers, patches, (grid[0], grid[1]), kinds.get("mean"))


def cached_items(readings: list[Reading]) -> list[str]:
    """The items `kind@tap` to store for some readings; a mean is computed from its patches where these are stored."""
    items = []
    for tap, kinds in kinds_by_tap(readings).items():
        kinds = kinds - {"mean"} if "patches" in kinds else kinds
        items += [f"{kind}@{tap}" for kind in ("cls", "registers", "patches", "mean") if kind in kinds]
    return items


def kind_and_tap(item: str) -> tuple[str, str]:
    """Kind and tap of a stored item."""
    parsed = ReadingItem.parse(item)
    return parsed.kind, parsed.tap


class BlockShuffle(torch.utils.data.Sampler[int]):
    """A shuffled order that reads a disk in long stretches: blocks in random order, mixed within windows of blocks.

    Args:
        num_images: Number of images.
        epoch: Gives the number of the epoch; the order depends on it and on the seed alone.
        seed: Seed of the order.
        block_size: Consecutive images that are read together.
        window: Blocks whose images are mixed.
    """

    def __init__(
        self, num_images: int, epoch: Callable[[], int], seed: int = 0, block_size: int = 64, window: int = 256
    ):
        self.num_images, self.current_epoch, self.seed = num_images, epoch, seed
        self.block_size, self.window = block_size, window

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.current_epoch()))
        blocks = rng.permutation(-(-self.num_images // self.block_size))
        for start in range(0, len(blocks), self.window):
            firsts = blocks[start : start + self.window, None] * self.block_size
            images = (firsts + np.arange(self.block_size)).ravel()
            yield from rng.permutation(images[images < self.num_images]).tolist()
