"""The token cache: what a frozen backbone says about a set of images, computed once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from attentive_probes.backbones import Backbone
from attentive_probes.checks import COUNT, OPTIONAL_COUNT, Range, check_ranges, unknown_name
from attentive_probes.data.store.block_shuffle import BlockShuffle
from attentive_probes.data.store.encoding import ENCODINGS
from attentive_probes.data.store.integrity import VERIFY
from attentive_probes.data.store.token_store import TokenStore
from attentive_probes.files.fingerprint import bytes_fingerprint, fingerprint_of
from attentive_probes.machine.memory import free_memory
from attentive_probes.problems import find_problem
from attentive_probes.tokens import Reading, ReadingItem, Tokens, kinds_by_tap

KEEP = ("auto", "disk", "memory", "device")
STRETCH = 2**20  # bytes that are read at a time, at least
SHARE_OF_MEMORY = 0.3  # of what is free, up to which `auto` keeps the tokens in memory


@dataclass
class CacheOptions:
    """How tokens are cached.

    Args:
        folder: Where caches live; each lies in a subfolder named after everything its tokens depend on.
        encoding: `float32`, `float16`, `bfloat16`, or `int8` (a scale per token, channels evened out); `auto` is
            `bfloat16` for a backbone in that precision, whose range `float16` lacks, and `float16` for others.
        views: Augmented views per image; epoch e trains on view `(e - 1) % views`. Without augmentation, 1.
        keep: Where the tokens are while they are read: `disk` (mapped), `memory`, `device`, or `auto`: in memory if
            they take less than a third of what is free for this process, in its container and beside its neighbours.
        shard_size: Images per file.
        batch_size: Images per forward pass of the backbone; by default 256, or 16 on a CPU, whose caches hold no more.
        repository: Dataset repository on the Hub in which to look for a cache first.
        verify: How files are checked when a cache is opened: `never` by their sizes alone; `open` by checksums, unless
            they look as they did when they were found right; `full` always.

    Raises:
        ValueError: If a value is unknown or out of range.
    """

    folder: str = "outputs/tokens"
    encoding: str = "auto"
    views: int = 1
    keep: str = "auto"
    shard_size: int = 1024
    batch_size: int | None = None
    repository: str | None = None
    verify: str = "open"

    def __post_init__(self) -> None:
        if self.encoding not in ("auto", *ENCODINGS):
            raise ValueError(unknown_name("encoding", self.encoding, ("auto", *ENCODINGS)))
        if self.keep not in KEEP:
            raise ValueError(unknown_name("keep", self.keep, KEEP))
        if self.verify not in VERIFY:
            raise ValueError(unknown_name("verify", self.verify, VERIFY))
        check_ranges(self, {"views": Range(1, 10**5, whole=True), "shard_size": COUNT, "batch_size": OPTIONAL_COUNT})


class CachePart(NamedTuple):
    """A part of a stored cache: targets, numbers `(N,)` of its images there, items, and how many were unreadable."""

    labels: Tensor
    images: np.ndarray
    items: list[str]
    num_unreadable: int


class TokenCache(torch.utils.data.Dataset):
    """Cached tokens and labels of one split, as a PyTorch dataset that gives whole batches.

    `cache.__getitems__(indices)` is `{"tokens": tap -> Tokens, "labels": ..., "rows": ...}` in the order of indices.

    Args:
        folder: A complete cache.
        keep: Where to keep the tokens; see `CacheOptions`.
        device: The device of `keep="device"`.
        part: What of the cache it is, if not all: some rows, some items, other labels.
        verify: How its files are checked; see `CacheOptions`.

    Attributes:
        num_unreadable: How many images were left out because they could not be read.
        left_out: Numbers `(K,)` of those of them that are images of the split.
        images: Rows `(N,)` of its images in the split that it was built from.
        epoch: Epoch of the training, from 1; it says which view of each image is read.

    Raises:
        ValueError: If the folder holds no complete cache, it is damaged, or none of its images could be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        keep: str = "auto",
        device: torch.device | str = "cpu",
        part: CachePart | None = None,
        verify: str = "open",
    ):
        self.store = TokenStore.open(folder, verify)
        self.manifest, self.part = self.store.manifest, part
        self.items = list(self.manifest.items)
        self.num_unreadable = int(self.manifest.key.get("unreadable", 0))
        labels, images = self.store.labels(), np.arange(self.manifest.num_images)
        if part is not None:
            labels, images, self.items, self.num_unreadable = part
        is_read = ~np.isin(images, self.store.unreadable())
        self.left_out, self.images = np.flatnonzero(~is_read), torch.from_numpy(np.flatnonzero(is_read))
        self.num_unreadable += len(self.left_out)
        self._kinds = {item: kind_and_tap(item) for item in self.items}
        self.labels = labels[torch.from_numpy(is_read)]
        self._rows = self.manifest.places[images[is_read]]
        if not len(self):
            raise ValueError(f"The token cache {str(self.store.folder)!r} holds no image that can be read.")
        self.epoch = 0
        per_row = self.manifest.bytes_per_row_of(self.items)
        if keep == "auto":
            size = per_row * len(self._rows) * self.manifest.views
            keep = "memory" if size < SHARE_OF_MEMORY * free_memory() else "disk"
        self.keep, self._device = keep, torch.device(device if keep == "device" else "cpu")
        self._kept: dict[str, dict[str, Tensor]] = {}
        if keep != "disk":
            everything = np.concatenate([self._stored(self._rows, view) for view in range(self.manifest.views)])
            for item in self.items:
                parts = self.store.read(item, everything)
                self._kept[item] = {suffix: found.to(self._device) for suffix, found in parts.items()}

    holds_tokens = is_checked = True

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_images(self) -> int:
        """Number of images N."""
        return len(self)

    def targets(self) -> Tensor:
        """The targets of all images, `(N,)` class ids, or `(N,)` or `(N, C)` floats."""
        return self.labels

    def rows_at(self, identities: np.ndarray) -> np.ndarray:
        """The numbers of images `(K,)` as they were cached."""
        return identities

    def set_epoch(self, epoch: int) -> None:
        """Choose the views that are read, from 1 in training."""
        self.epoch = epoch

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        images = np.asarray(indices, np.int64)
        view = max(self.epoch - 1, 0) % self.manifest.views
        places = torch.from_numpy(images)
        found = {
            name: values.index_select(0, places) for name, values in (("labels", self.labels), ("rows", self.images))
        }
        return {"tokens": self._tokens(images, view), **found}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])

    def in_blocks(self, seed: int) -> list[int]:
        """Its images in a random order that reads the disk in stretches of a megabyte or more; see `BlockShuffle`."""
        size = max(64, -(-STRETCH // self.manifest.bytes_per_row_of(self.items)))
        on_disk = np.argsort(self._rows, kind="stable")
        return on_disk[list(BlockShuffle(len(self), lambda: self.epoch, seed, size))].tolist()

    def fingerprint(self) -> str:
        """What it holds: the key of the store, the rows in order, and their targets."""
        parts = (fingerprint_of(self.manifest.key), self._rows, self.labels.numpy())
        return bytes_fingerprint("".join(bytes_fingerprint(part) for part in parts))

    def check_labels(self, num_labels: int, problem_type: str) -> None:
        """Check that its labels are targets of a problem.

        Raises:
            ValueError: If a label is not a target of the problem.
        """
        if not find_problem(problem_type).are_targets(self.labels, num_labels):
            raise ValueError(
                f"The token cache {str(self.store.folder)!r} holds labels that are no targets of {num_labels} classes "
                f"({problem_type}); name the classes it was built with."
            )

    def check(self, backbone: Backbone, readings: list[Reading]) -> None:
        """Check that the cache is one of this backbone, and holds what some readings need.

        Raises:
            ValueError: If it was built with other weights, a kind at a tap is missing, or the backbone has an adapter.
        """
        if backbone.adapter is not None:
            raise ValueError("An adapter changes the tokens with every step; train it online, not on a token cache.")
        weights = backbone.hash_weights()  # unknown of weights that are not all in memory
        if weights is not None and not backbone.has_hash(str(self.manifest.key.get("weights"))):
            raise ValueError(
                f"The token cache {str(self.store.folder)!r} was built with other weights than this backbone's; "
                "build it with the same backbone, in the same precision."
            )
        for item in cached_items(readings):
            if held_as(item, self.items) is None:
                raise ValueError(
                    f"The token cache {str(self.store.folder)!r} holds {self.items}, not {item!r}; "
                    "build it for these heads."
                )

    def _tokens(self, images: np.ndarray, view: int) -> dict[str, Tokens]:
        found: dict[str, dict[str, Tensor]] = {}
        for item, (kind, tap) in self._kinds.items():
            found.setdefault(tap, {})[kind] = self.store.decode(item, self._read(item, images, view))
        return {tap: _assemble(kinds, self.manifest.grids[tap]) for tap, kinds in found.items()}

    def _read(self, item: str, images: np.ndarray, view: int) -> dict[str, Tensor]:
        if item not in self._kept:
            return self.store.read(item, self._stored(self._rows[images], view))
        places = torch.from_numpy(images + view * len(self)).to(self._device)
        return {suffix: part.index_select(0, places) for suffix, part in self._kept[item].items()}

    def _stored(self, rows: np.ndarray, view: int) -> np.ndarray:
        return rows + view * self.manifest.num_images


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


def held_as(item: str, items: Iterable[str]) -> str | None:
    """Which of some stored items gives an item: itself, or the patches whose mean it is; `None` if none does."""
    kind, tap = kind_and_tap(item)
    choices = (item, f"patches@{tap}") if kind == "mean" else (item,)
    return next((choice for choice in choices if choice in items), None)


def kind_and_tap(item: str) -> tuple[str, str]:
    """Kind and tap of a stored item."""
    parsed = ReadingItem.parse(item)
    return parsed.kind, parsed.tap
