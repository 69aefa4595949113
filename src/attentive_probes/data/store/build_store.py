"""Building a token store: one pass of the backbone over the images, whose shards all processes and runs share."""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
from tqdm.auto import tqdm

from attentive_probes.data.store.encoding import channel_spread, relative_error
from attentive_probes.data.store.integrity import find_damage, wrong_in_shard
from attentive_probes.data.store.manifest import MANIFEST, Manifest
from attentive_probes.data.store.shard_writer import ShardWriter, lock_of
from attentive_probes.data.store.token_source import TokenSource
from attentive_probes.data.store.token_store import SPREAD, TokenStore
from attentive_probes.files.disk_space import check_space
from attentive_probes.machine.processes import bar_is_off, process_state

logger = logging.getLogger(__name__)
SAMPLE = 64  # images on which int8 is calibrated and every encoding's error is measured
WORTH_SAYING = 20.0  # seconds
POLL = 0.2  # seconds between two looks at what others are writing


def is_whole(folder: Path, verify: str) -> bool:
    """Whether a store with a manifest is all there; if not, it is made an incomplete one, and the log says why.

    Args:
        folder: The store.
        verify: How its files are checked; see `find_damage`.
    """
    try:
        store = TokenStore(folder, Manifest.read(folder / MANIFEST))
        wrong = find_damage(store, verify)
    except ValueError as error:
        wrong = {MANIFEST: str(error)}
    for name, cause in wrong.items():
        logger.warning("The token cache %s is damaged: %s %s; what is wrong is computed again.", folder, name, cause)
    if wrong:
        (folder / MANIFEST).unlink(missing_ok=True)
    if any(name.endswith(SPREAD) for name in wrong):  # without it, tokens mean nothing
        shutil.rmtree(folder)
    return not wrong


def build_store(source: TokenSource, store: TokenStore, num_workers: int = 0) -> None:
    """Compute what is missing of a store, together with whoever else does.

    Args:
        source: What gives the tokens.
        store: Where they go.
        num_workers: Worker processes that decode, per process.

    Raises:
        ValueError: If the disk has too little space, an image cannot be read, or a number does not fit the encoding.
    """
    state = process_state()
    if state.is_main_process:
        store.folder.mkdir(parents=True, exist_ok=True)
    state.wait_for_everyone()
    if source.options.verify != "never":
        _drop_damaged(store, state.process_index, state.num_processes)
    if state.is_main_process:
        check_space({store.folder: missing_rows(store) * store.manifest.bytes_per_row})
        with lock_of(store, "sample"):
            _measure(source, store, state.num_processes)
    state.wait_for_everyone()
    _write_all(source, store, num_workers)
    state.wait_for_everyone()
    if state.is_main_process:
        with lock_of(store, MANIFEST):
            if not (store.folder / MANIFEST).exists():
                store.finish(source.split.targets().numpy(), source.split.content())
    state.wait_for_everyone()


def missing_rows(store: TokenStore) -> int:
    """Rows that are still to be computed."""
    return sum(len(store.rows_of(shard)) for shard in store.missing_shards())


def _write_all(source: TokenSource, store: TokenStore, num_workers: int) -> None:
    """Write shards until all are there, whoever wrote them."""
    state, is_told, total = process_state(), False, store.manifest.num_rows
    with tqdm(total=total, desc="caching tokens", unit="img", disable=bar_is_off(state.is_main_process)) as bar:
        while missing := store.missing_shards():
            bar.update(total - missing_rows(store) - bar.n)
            start = state.process_index * len(missing) // state.num_processes  # each in a stretch of its own
            if _write_free(source, store, missing[start:] + missing[:start], num_workers, bar):
                continue
            if not is_told:
                logger.info("Waiting for another process that computes shard %d of %s.", missing[0], store.folder)
            is_told = True
            time.sleep(POLL)


def _write_free(source: TokenSource, store: TokenStore, shards: Sequence[int], num_workers: int, bar: tqdm) -> bool:
    """Write those of some shards that nobody else is writing; whether there was one."""
    claimed: deque[tuple[ShardWriter, int]] = deque()  # with the number of their rows

    def rows() -> Iterator[range]:  # a shard is claimed when work gets to it
        for shard in shards:
            if (writer := ShardWriter.claim(store, shard)) is not None:
                batches = source.plan(store.rows_of(shard)[writer.num_rows :])
                if batches:
                    claimed.append((writer, len(store.rows_of(shard))))
                    yield from batches
                else:
                    writer.finish()

    first = next(coming := rows(), None)
    if first is None:
        return False
    try:
        for batch in source.batches(chain([first], coming), num_workers):
            writer, count = claimed[0]
            writer.add(batch)
            bar.update(batch.num_rows)
            if writer.num_rows == count:
                writer.finish()
                claimed.popleft()
    except BaseException:
        for writer, _ in claimed:
            writer.pause()
        raise
    return True


def _drop_damaged(store: TokenStore, rank: int, processes: int) -> None:
    """Remove shards, of a build that was not finished, that are not what was written."""
    held = set(range(store.manifest.num_shards)) - set(store.missing_shards())
    for shard in sorted(held)[rank::processes]:
        if not wrong_in_shard(store, shard):
            continue
        folder = store.shard_folder(shard)
        with lock_of(store, folder.name):
            if wrong := wrong_in_shard(store, shard):  # and nobody has mended it since
                name, cause = next(iter(wrong.items()))
                logger.warning("%s %s; its shard is computed again.", folder / name, cause)
                shutil.rmtree(folder, ignore_errors=True)


def _measure(source: TokenSource, store: TokenStore, processes: int) -> None:
    """Calibrate the encoding and measure its error on a first batch, by which the log tells how long it will take."""
    manifest, start = store.manifest, time.perf_counter()
    sample = next(source.batches(source.plan(range(min(SAMPLE, manifest.num_images)))[:1]))
    seconds = missing_rows(store) * (time.perf_counter() - start) / sample.num_rows / processes
    if seconds > WORTH_SAYING:
        logger.info("Caching %d views takes about %.0f minutes, by a first batch.", missing_rows(store), seconds / 60)
    for item, of_item in sample.tokens.items():
        tokens = of_item.cpu()
        if sample.is_read is not None:  # what could not be read says nothing of the others
            tokens = tokens[sample.is_read] if sample.is_read.any() else torch.ones_like(tokens)
        if manifest.encoding == "int8" and store.spread(item) is None:
            store.set_spread(item, channel_spread(tokens))
        manifest.error[item] = relative_error(tokens, manifest.encoding, store.spread(item))
