"""Building a token cache: one pass of the backbone over the images, shared by all processes, resumable."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone
from attentive_probes.data.augment import Augmentation
from attentive_probes.data.batches import make_collator
from attentive_probes.data.cache_search import find_held
from attentive_probes.data.encoding import channel_spread, relative_error
from attentive_probes.data.hub_cache import find_token_cache
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.token_cache import CacheOptions, CachePart, TokenCache, cached_items, kind_and_tap
from attentive_probes.data.token_store import MANIFEST, Manifest, TokenStore
from attentive_probes.fingerprint import bytes_fingerprint, fingerprint_of
from attentive_probes.processes import process_state
from attentive_probes.tokens import Reading, kinds_by_tap

logger = logging.getLogger(__name__)
SAMPLE = 64  # images on which int8 is calibrated and every encoding's error is measured


def build_token_cache(
    backbone: Backbone,
    split: ImageSplit,
    readings: list[Reading],
    processor: BaseImageProcessor,
    options: CacheOptions,
    *,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    num_workers: int = 0,
) -> TokenCache:
    """Open the cache of a split, after computing what is missing of it.

    Tokens are known by everything that they depend on: the backbone's weights, the content of the images, the
    processor, the readings, the encoding, the views. A copy of the images finds them, and so does a part of them,
    another order, other labels, or fewer readings, if no view is random. Nothing stale is ever read; a killed build
    goes on where it stopped. With a repository on the Hub, a cache that it holds is downloaded instead of computed.

    Args:
        backbone: The frozen backbone.
        split: The images, checked.
        readings: What the heads will read.
        processor: The image processor.
        options: How and where.
        augmentation: What is random about views; `None` for the plain image, of which one view is enough.
        seed: Seed of the views.
        num_workers: Worker processes that decode, per process.

    Raises:
        ValueError: If the disk has too little space, the repository does not exist, more than one view is asked for
            without augmentation, or the backbone has an adapter.
    """
    if backbone.adapter is not None:
        raise ValueError("An adapter changes the tokens with every step; train it online (data.tokens=online).")
    if options.views > 1 and augmentation is None:
        raise ValueError(f"views={options.views} would be equal without augmentation; set views=1.")
    if augmentation is not None and options.views == 1:
        logger.warning(
            "One view per image: every epoch sees the same random crop. Set views to several, or augmentation to null."
        )
    if split.digests is None and split.options.unreadable == "skip":
        split.check_images()  # a cache holds rows that count, and no others
    if options.encoding == "auto":
        options = replace(options, encoding="bfloat16" if backbone.dtype == torch.bfloat16 else "float16")
    source = _TokenSource(backbone, split, readings, processor, options, augmentation, seed)
    folder = Path(options.folder) / fingerprint_of(source.key)
    state = process_state()
    (found,) = broadcast_object_list([_find(source, folder)])  # the first process decides for all
    if found is None and options.repository is not None:
        with state.main_process_first():
            downloaded = find_token_cache(options.repository, folder.name)
        found = None if downloaded is None else (downloaded, None)
    if found is None:
        backbone.to(state.device)
        _build(source, TokenStore(folder, source.manifest()), state, num_workers)
    folder, part = found or (folder, None)
    return TokenCache(folder, options.keep, state.device, part)


def _find(source: _TokenSource, folder: Path) -> tuple[Path, CachePart | None] | None:
    if (folder / MANIFEST).exists():
        return folder, None
    if source.augmentation is not None:
        return None  # views are drawn for the rows of a split
    split = source.split
    return find_held(folder.parent, source.key, split.content(), split.targets())


@dataclass
class _TokenSource:
    """Where the tokens of a cache come from, and everything that they depend on."""

    backbone: Backbone
    split: ImageSplit
    readings: list[Reading]
    processor: BaseImageProcessor
    options: CacheOptions
    augmentation: Augmentation | None
    seed: int

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

    @torch.no_grad()
    def batches(self, rows: range, num_workers: int = 0) -> Iterator[dict[str, Tensor]]:
        """Tokens `(B, T, D)` by item, in order of rows; view v is what training draws in epoch v + 1."""
        num_images, needs, order = len(self.split), kinds_by_tap(self.readings), self.order
        collator = make_collator(self.split, self.processor, self.backbone, self.augmentation, self.seed)
        places = {item: kind_and_tap(item) for item in self.items}
        device = self.backbone.device
        for view in range(rows.start // num_images, (rows.stop - 1) // num_images + 1):
            collator.epoch = view + 1
            images = range(max(rows.start - view * num_images, 0), min(rows.stop - view * num_images, num_images))
            loader = DataLoader(
                Subset(self.split, order[images.start : images.stop].tolist()),
                batch_size=self.options.batch_size,
                collate_fn=collator,
                num_workers=num_workers,
            )
            for batch in loader:
                tokens = self.backbone(batch["pixel_values"].to(device, non_blocking=True), needs)
                yield {item: tokens[tap].read(kind) for item, (kind, tap) in places.items()}

    def _key(self) -> dict[str, Any]:
        described = self.backbone.describe()
        unhashed = {key: described.get(key) for key in ("_name_or_path", "_commit_hash")}
        return {
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


def _build(source: _TokenSource, store: TokenStore, state: PartialState, num_workers: int) -> None:
    manifest = store.manifest
    if state.is_main_process:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.discard_leftovers()
        _check_space(store)
        start = time.perf_counter()
        sample = next(source.batches(range(min(SAMPLE, manifest.num_rows))))
        _estimate_time(store, state, time.perf_counter() - start)
        for item, tokens in sample.items():
            spread = channel_spread(tokens.cpu()) if manifest.encoding == "int8" else None
            if spread is not None:
                store.set_spread(item, spread)
            manifest.error[item] = relative_error(tokens, manifest.encoding, spread)
    state.wait_for_everyone()
    mine = store.missing_shards()[state.process_index :: state.num_processes]
    state.wait_for_everyone()  # all have looked before one writes
    with tqdm(total=sum(len(store.rows_of(shard)) for shard in mine), desc="caching tokens", unit="img") as bar:
        for shard in mine:
            store.write_shard(shard, source.batches(store.rows_of(shard), num_workers))
            bar.update(len(store.rows_of(shard)))
    state.wait_for_everyone()
    if state.is_main_process:
        store.finish(source.split.targets().numpy(), source.split.content())
    state.wait_for_everyone()


def _check_space(store: TokenStore) -> None:
    rows = sum(len(store.rows_of(shard)) for shard in store.missing_shards())
    needed, free = rows * store.manifest.bytes_per_row, shutil.disk_usage(store.folder).free
    logger.info("Token cache of %d images: %.2f GB to write, %.1f GB free.", rows, needed / 1e9, free / 1e9)
    if needed > 0.95 * free:
        raise ValueError(
            f"The token cache needs {needed / 1e9:.1f} GB in {str(store.folder)!r}, of which {free / 1e9:.1f} GB are "
            "free; name another folder, choose a smaller encoding (int8), or train online."
        )


def _estimate_time(store: TokenStore, state: PartialState, seconds_of_sample: float) -> None:
    rows = sum(len(store.rows_of(shard)) for shard in store.missing_shards())
    seconds = rows * seconds_of_sample / min(SAMPLE, store.manifest.num_rows) / state.num_processes
    logger.info("Caching %d views takes about %.0f minutes, by a first batch.", rows, seconds / 60)
