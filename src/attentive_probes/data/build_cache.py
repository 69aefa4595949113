"""A token cache is opened, or built where it is not there."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone
from attentive_probes.data.finite import refuse_infinite
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.store.build_store import build_store, is_whole, missing_rows
from attentive_probes.data.store.caches import find_held
from attentive_probes.data.store.hub_cache import find_token_cache
from attentive_probes.data.store.manifest import MANIFEST
from attentive_probes.data.store.token_source import TokenSource
from attentive_probes.data.store.token_store import TokenStore
from attentive_probes.data.token_cache import CacheOptions, CachePart, TokenCache
from attentive_probes.files.fingerprint import fingerprint_of
from attentive_probes.machine.processes import process_state
from attentive_probes.tokens import Reading

logger = logging.getLogger(__name__)


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
    precision: str = "no",
) -> TokenCache:
    """Open the cache of a split, after computing what is missing of it.

    Tokens are known by everything that they depend on: the backbone's weights, the content of the images, the
    processor, the readings, the encoding, the views. A copy of the images finds them, and so does a part of them,
    another order, other labels, or fewer readings, if no view is random. Nothing stale is ever read; a killed build
    goes on where it stopped; runs that build one cache at a time share its shards; what is damaged is computed again.
    With a repository on the Hub, a cache that it holds is downloaded instead of computed.

    Args:
        backbone: The frozen backbone.
        split: The images; those that cannot be read are found when the backbone is to read them.
        readings: What the heads will read.
        processor: The image processor.
        options: How and where.
        augmentation: What is random about views; `None` for the plain image, of which one view is enough.
        seed: Seed of the views.
        num_workers: Worker processes that decode, per process.
        precision: Mixed precision of the backbone: `no`, `bf16` or `fp16`.

    Raises:
        ValueError: If an image cannot be read and is not to be left out, the disk has too little space, the repository
            does not exist, more than one view is asked for without augmentation, or the backbone has an adapter.
    """
    source = token_source(
        backbone, split, readings, processor, options, augmentation=augmentation, seed=seed, precision=precision
    )
    return open_cache(source, num_workers)


def token_source(
    backbone: Backbone,
    split: ImageSplit,
    readings: list[Reading],
    processor: BaseImageProcessor,
    options: CacheOptions,
    *,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    precision: str = "no",
) -> TokenSource:
    """What `build_token_cache` is about to read, with the same arguments; nothing is computed yet.

    Raises:
        ValueError: If more than one view is asked for without augmentation, or the backbone has an adapter.
    """
    if backbone.adapter is not None:
        raise ValueError("An adapter changes the tokens with every step; train it online (data.tokens=online).")
    if options.views > 1 and augmentation is None:
        raise ValueError(f"views={options.views} would be equal without augmentation; set views=1.")
    if augmentation is not None and options.views == 1:
        logger.warning(
            "One view per image: every epoch sees the same random crop. Set views to several, or augmentation to null."
        )
    if options.encoding == "auto":
        options = replace(options, encoding="bfloat16" if backbone.dtype == torch.bfloat16 else "float16")
    return TokenSource(backbone, split, readings, processor, options, augmentation, seed, precision)


def bytes_to_write(source: TokenSource) -> int:
    """What a cache will take on the disk beyond what is there of it."""
    folder, options = _folder_of(source), source.options
    if (folder / MANIFEST).exists() or _held(source, "never") is not None:
        return 0
    store = TokenStore(folder, source.manifest())
    return missing_rows(store) * store.manifest.bytes_per_row if options.repository is None else 0


def open_cache(source: TokenSource, num_workers: int = 0) -> TokenCache:
    """Open the cache of a source, after computing what is missing of it; see `build_token_cache`.

    Raises:
        ValueError: As there.
    """
    folder, options, split = _folder_of(source), source.options, source.split
    state = process_state()
    (found,) = broadcast_object_list([_find(source, folder) if state.is_main_process else None])
    if found is None and options.repository is not None:
        with state.main_process_first():
            downloaded = find_token_cache(options.repository, folder.name)
        found = None if downloaded is None else (downloaded, None)
    if found is None:
        source.backbone.to(state.device)
        build_store(source, TokenStore(folder, source.manifest()), num_workers)
    verify = options.verify if found is not None and found[0] != folder else "never"  # ours was looked at, or made
    folder, part = found or (folder, None)
    cache = TokenCache(folder, options.keep, state.device, part, verify)
    if len(cache.left_out) and split.options.unreadable == "raise":
        first = int(cache.left_out[0])
        split[first]  # says what is wrong with it, if it cannot be read
        refuse_infinite([first], 1, split)
    cache.images = torch.from_numpy(split.rows)[cache.images]
    return cache


def _find(source: TokenSource, folder: Path) -> tuple[Path, CachePart | None] | None:
    if (folder / MANIFEST).exists() and is_whole(folder, source.options.verify):
        return folder, None
    return _held(source, source.options.verify)


def _held(source: TokenSource, verify: str) -> tuple[Path, CachePart | None] | None:
    if source.augmentation is not None:
        return None  # views are drawn for the rows of a split
    split = source.split
    return find_held(Path(source.options.folder), source.key, split.content(), split.targets(), verify)


def _folder_of(source: TokenSource) -> Path:
    return Path(source.options.folder) / fingerprint_of(source.key)
