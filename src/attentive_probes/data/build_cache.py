"""Building a token cache: one pass of the backbone over the images, shared by all processes, resumable."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone
from attentive_probes.data.augment import Augmentation
from attentive_probes.data.cache_search import find_held
from attentive_probes.data.encoding import channel_spread, relative_error
from attentive_probes.data.hub_cache import find_token_cache
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.shard_writer import ShardWriter
from attentive_probes.data.token_cache import CacheOptions, CachePart, TokenCache
from attentive_probes.data.token_source import TokenSource
from attentive_probes.data.token_store import MANIFEST, TokenStore
from attentive_probes.fingerprint import fingerprint_of
from attentive_probes.processes import process_state
from attentive_probes.tokens import Reading

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
    precision: str = "no",
) -> TokenCache:
    """Open the cache of a split, after computing what is missing of it.

    Tokens are known by everything that they depend on: the backbone's weights, the content of the images, the
    processor, the readings, the encoding, the views. A copy of the images finds them, and so does a part of them,
    another order, other labels, or fewer readings, if no view is random. Nothing stale is ever read; a killed build
    goes on where it stopped. With a repository on the Hub, a cache that it holds is downloaded instead of computed.

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
    source = TokenSource(backbone, split, readings, processor, options, augmentation, seed, precision)
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
    cache = TokenCache(folder, options.keep, state.device, part)
    if len(cache.left_out) and split.options.unreadable == "raise":
        split[int(cache.left_out[0])]  # says what is wrong with it
    return cache


def _find(source: TokenSource, folder: Path) -> tuple[Path, CachePart | None] | None:
    if (folder / MANIFEST).exists():
        return folder, None
    if source.augmentation is not None:
        return None  # views are drawn for the rows of a split
    split = source.split
    return find_held(folder.parent, source.key, split.content(), split.targets())


def _build(source: TokenSource, store: TokenStore, state: PartialState, num_workers: int) -> None:
    manifest = store.manifest
    if state.is_main_process:
        store.folder.mkdir(parents=True, exist_ok=True)
        _check_space(store)
        start = time.perf_counter()
        sample = next(source.batches(source.plan(range(min(SAMPLE, manifest.num_images)))[:1]))
        _estimate_time(store, state, time.perf_counter() - start)
        for item, of_item in sample.tokens.items():
            tokens = of_item.cpu()
            if sample.is_read is not None:  # what could not be read says nothing of the others
                tokens = tokens[sample.is_read] if sample.is_read.any() else torch.ones_like(tokens)
            spread = channel_spread(tokens) if manifest.encoding == "int8" else None
            if spread is not None:
                store.set_spread(item, spread)
            manifest.error[item] = relative_error(tokens, manifest.encoding, spread)
    state.wait_for_everyone()
    mine = store.missing_shards()[state.process_index :: state.num_processes]
    state.wait_for_everyone()  # all have looked before one writes
    writers = ShardWriter.of(store, mine)
    plans = [source.plan(store.rows_of(writer.shard)[writer.num_rows :]) for writer in writers]
    batches = source.batches([batch for plan in plans for batch in plan], num_workers)  # one set of workers for all
    total = sum(len(batch) for plan in plans for batch in plan)
    with tqdm(total=total, desc="caching tokens", unit="img", disable=not state.is_main_process) as bar:
        for writer, plan in zip(writers, plans, strict=True):
            try:
                for batch in islice(batches, len(plan)):
                    writer.add(batch)
                    bar.update(batch.num_rows)
            except BaseException:
                writer.pause()
                raise
            writer.finish()
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
