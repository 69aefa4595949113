"""Batches from the disk are as mixed as random ones, whatever the order of the data; few files are open at a time."""

import resource

import numpy as np
import pytest
import torch
from test_token_cache import LABELS, RUNS, build, split_of

from attentive_probes import ProbeSweep
from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.store import read_rows as shard_files
from attentive_probes.data.store.block_shuffle import BlockShuffle
from attentive_probes.data.store.token_store import Manifest, TokenBatch, TokenStore
from attentive_probes.data.token_cache import TokenCache
from spawned import apart

IMAGES, CLASSES = 1_281_167, 1000


@pytest.fixture
def sweep(tiny_backbone):
    return ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, labels=LABELS)


def classes_per(order: np.ndarray, size: int, count: int = 60) -> float:
    """Mean number of classes in stretches of an order of images that are sorted by class."""
    labels = np.arange(IMAGES) * CLASSES // IMAGES
    return float(np.mean([len(np.unique(labels[order[i * size : (i + 1) * size]])) for i in range(count)]))


def test_batches_of_sorted_data_are_as_mixed_as_random_ones():
    """ImageNet's size, class by class: classes per batch of 1,024, and of 128 and per 16 of these, within 3%."""
    manifest = Manifest({"patches@last": (196, 768)}, {"last": (14, 14)}, IMAGES, 1, "float16", 1024, {}, is_mixed=True)
    assert 64 * manifest.bytes_per_row > 2**20
    found = manifest.order[list(BlockShuffle(IMAGES, lambda: 1, 0))]
    assert np.array_equal(np.sort(found), np.arange(IMAGES))
    assert np.array_equal(manifest.places[manifest.order], np.arange(IMAGES))
    chance = np.random.default_rng(1).permutation(IMAGES)
    for size in (128, 1024, 16 * 128, 16 * 1024):
        assert classes_per(found, size) == pytest.approx(classes_per(chance, size), rel=0.03), size
    unmixed = np.array(list(BlockShuffle(IMAGES, lambda: 1, 0)))
    assert classes_per(unmixed, 1024) < 0.5 * classes_per(chance, 1024)


def test_every_image_keeps_its_tokens_and_label(sweep, tmp_path):
    """Read in blocks from the disk, in any order of epochs; few bytes a row make blocks of more rows."""
    split = split_of(sweep, 21)
    cache = build(sweep, tmp_path, split, keep="disk")
    assert cache.manifest.is_mixed and not np.array_equal(cache.manifest.order, np.arange(21))
    memory = build(sweep, tmp_path, split, keep="memory")
    for epoch in (1, 2):
        cache.epoch = epoch
        order = cache.in_blocks(seed=0)
        assert sorted(order) == list(range(21))
        loader = make_cached_loader(cache, StepPlan(4), train=True)
        labels = torch.cat([batch["labels"] for (batch,) in loader])
        assert labels.tolist() == split.labels[order].tolist()
    batch, expected = cache.__getitems__([4, 20, 0]), memory.__getitems__([4, 20, 0])
    assert all(torch.equal(batch["tokens"][tap].cls, expected["tokens"][tap].cls) for tap in batch["tokens"])


def read_with_few_files(folder):
    """Read a cache in turns under a limit of 256 open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    cache = TokenCache(folder, keep="disk")
    for rows in np.random.default_rng(0).permutation(600).reshape(10, 60).tolist() * 2:
        batch = cache.__getitems__(rows)
        assert batch["tokens"]["last"].patches[:, 1, 3].tolist() == rows == batch["labels"].tolist()
    return "read"


def test_few_files_are_open(tmp_path):
    """Three hundred shards of two items are read in turns under a limit of 256 open files, in a process of its own."""
    items = {"cls@last": (1, 4), "patches@last": (2, 4)}
    store = TokenStore(tmp_path, Manifest(items, {"last": (1, 2)}, 600, 1, "float32", 2, {}))
    for shard in range(300):
        rows = torch.arange(2 * shard, 2 * shard + 2.0)
        batch = {item: rows[:, None, None].expand(2, length, 4) for item, (length, _) in items.items()}
        store.write_shard(shard, [TokenBatch(batch)])
    store.finish(np.arange(600), np.arange(600, dtype=np.uint64))
    assert apart(read_with_few_files, str(tmp_path)) == "read"
    assert shard_files.OPEN_FILES <= 128
