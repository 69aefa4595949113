"""Where the tokens of a cache come from: a backbone that reads a split, batch by batch, and all that they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone
from attentive_probes.data.batches import Collator, make_collator
from attentive_probes.data.finite import only_finite
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.steps import Batch, plain_errors
from attentive_probes.data.store.manifest import Manifest
from attentive_probes.data.store.token_store import TokenBatch
from attentive_probes.data.token_cache import CacheOptions, cached_items, kind_and_tap
from attentive_probes.files.fingerprint import bytes_fingerprint
from attentive_probes.machine.processes import autocast
from attentive_probes.tokens import Reading, Tokens, kinds_by_tap


@dataclass
class TokenSource:
    """A backbone, a split, and how the one reads the other.

    Args:
        backbone: The frozen backbone.
        split: The images.
        readings: What the heads will read.
        processor: The image processor.
        options: How tokens are cached; the encoding is a definite one.
        augmentation: What is random about views.
        seed: Seed of the views.
        precision: Mixed precision of the backbone: `no`, `bf16` or `fp16`.
    """

    backbone: Backbone
    split: ImageSplit
    readings: list[Reading]
    processor: BaseImageProcessor
    options: CacheOptions
    augmentation: Augmentation | None
    seed: int
    precision: str = "no"

    def __post_init__(self) -> None:
        self.items = cached_items(self.readings)
        self.key = self._key()
        self.order = self.manifest().order

    def manifest(self) -> Manifest:
        """What the store will hold."""
        items, grids = {}, {}
        for item in self.items:
            kind, tap = kind_and_tap(item)
            layout = self.backbone.geometry.layout(tap)
            items[item], grids[tap] = (layout.count(kind), layout.width), layout.grid
        options = self.options
        sizes = (len(self.split), options.views, options.encoding, options.shard_size)
        return Manifest(items, grids, *sizes, self.key, is_mixed=True)

    def plan(self, rows: range) -> list[range]:
        """Rows of a store in batches, none of which holds images of two views."""
        default = 16 if self.backbone.device.type == "cpu" else 256
        size, num_images = self.options.batch_size or default, len(self.split)
        views = range(rows.start // num_images, -(-rows.stop // num_images)) if len(rows) else ()
        pieces = [range(max(rows.start, v * num_images), min(rows.stop, (v + 1) * num_images)) for v in views]
        return [piece[first : first + size] for piece in pieces for first in range(0, len(piece), size)]

    @torch.no_grad()
    def batches(self, plan: Iterable[range], num_workers: int = 0) -> Iterator[TokenBatch]:
        """Tokens of batches of rows, in order; view v is what training draws in epoch v + 1.

        Raises:
            ValueError: If an image cannot be read, or gives tokens that are not finite, unless it may be left out.
        """
        needs, device = kinds_by_tap(self.readings), self.backbone.device
        collator = make_collator(self.split, self.processor, self.backbone, self.augmentation, self.seed)
        loader: DataLoader = DataLoader(
            _Views(self.split, collator, self.order),
            batch_size=None,
            sampler=plan,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        for batch, is_read in plain_errors(loader):
            if not len(batch["labels"]):
                yield TokenBatch(self._blanks(len(is_read)), is_read)
                continue
            with autocast(device, self.precision):
                tokens = self.backbone(batch["pixel_values"].to(device, non_blocking=True), needs)
            tokens, kept = only_finite(tokens, {"rows": batch["rows"].to(device)}, self.split)
            if len(kept["rows"]) < len(batch["rows"]):
                is_read[is_read.clone()] = torch.isin(batch["rows"], kept["rows"].cpu())
            yield TokenBatch(self._placed(tokens, is_read), is_read)

    def _placed(self, tokens: Mapping[str, Tokens], is_read: Tensor) -> dict[str, Tensor]:
        """Tokens by item, with zeros for images that could not be read."""
        found = {item: tokens[tap].read(kind) for item in self.items for kind, tap in [kind_and_tap(item)]}
        if is_read.all():
            return found
        places = is_read.nonzero().flatten().to(self.backbone.device)
        return {i: t.new_zeros(len(is_read), *t.shape[1:]).index_copy_(0, places, t) for i, t in found.items()}

    def _blanks(self, count: int) -> dict[str, Tensor]:
        return {item: torch.zeros(count, *shape) for item, shape in self.manifest().items.items()}

    def _key(self) -> dict[str, Any]:
        described = self.backbone.describe()
        unhashed = {key: described.get(key) for key in ("_name_or_path", "_commit_hash")}
        key = {
            "weights": self.backbone.hash_weights() or unhashed,
            "backbone": {key: value for key, value in described.items() if key not in unhashed},
            "image_size": self.backbone.geometry.image_size,
            "images": bytes_fingerprint(self.split.content()),
            "labels": bytes_fingerprint(self.split.targets().numpy()),
            "unreadable": self.split.num_unreadable,
            "jpeg_min_size": self.split.options.jpeg_min_size,
            "processor": self.processor.to_dict(),
            "items": self.items,
            "encoding": self.options.encoding,
            "shard_size": self.options.shard_size,
            "views": self.options.views,
            "augmentation": None if self.augmentation is None else [*self.augmentation.describe(), self.seed],
        }
        return key if self.precision == "no" else {**key, "precision": self.precision}


class _Views(torch.utils.data.Dataset):
    """Batches of rows of a store: views of images, and which of the images can be read."""

    def __init__(self, split: ImageSplit, collator: Collator, order: np.ndarray):
        self.split, self.collator, self.order = split, collator, order

    def __getitem__(self, rows: range) -> tuple[Batch, Tensor]:
        view, num_images = rows.start // len(self.order), len(self.order)
        images = self.order[rows.start - view * num_images : rows.stop - view * num_images]
        examples = self.split.__getitems__(images.tolist())
        is_read = torch.tensor([example.image is not None for example in examples])
        return self.collator.collate(examples, view + 1), is_read
