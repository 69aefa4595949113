"""What grows with images, shards, heads and epochs, measured on synthetic data and extrapolated along a line.

    python benchmarks/scale.py

CPU, one thread, process time. Each slope is fitted to three sizes; the table gives it for ImageNet-1k (1,281,167
images, 1,252 shards) and for 100 million images (97,657 shards), beside the limit that is named.
"""

from __future__ import annotations

import io
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Image as ImageFeature
from PIL import Image
from rich.console import Console
from rich.table import Table
from sweep import KINDS, RATES, make_cache, make_sweep, read_all, start, step_of

from attentive_probes import HeadRun
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_split
from attentive_probes.data.pixels.content_hashes import find_content
from attentive_probes.data.store.block_shuffle import BlockShuffle
from attentive_probes.data.store.token_store import Manifest, TokenBatch, TokenStore
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.problems.label_columns import Labels
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.scores.class_sums import ClassSums
from attentive_probes.tokens import Tokens
from attentive_probes.training import trainer
from attentive_probes.training.steps import epochs

IMAGENET, LARGE, PER_SHARD = 1_281_167, 100_000_000, 1024
HEADS, CLASSES = 64, 1000
SINGLE = "single_label_classification"


def seconds(call: Callable[[], object]) -> float:
    """Process time of a call: the least of three."""
    found = []
    for _ in range(3):
        before = time.process_time()
        call()
        found.append(time.process_time() - before)
    return min(found)


def line(sizes: Sequence[int], measure: Callable[[int], float]) -> tuple[float, float, list[float]]:
    """Slope and offset of a line through measurements, and these."""
    found = [measure(size) for size in sizes]
    slope, offset = np.polyfit(sizes, found, 1)
    return float(slope), max(0.0, float(offset)), found


def folder_of(root: Path, count: int, size: int) -> Path:
    """A folder of `count` files in ten classes: small PNGs, each followed by `size` bytes of its own."""
    content = io.BytesIO()
    Image.new("L", (28, 28)).save(content, "png")
    folder = root / f"{count}-{size}"
    for name in range(10):
        (folder / f"class {name}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        (folder / f"class {i % 10}" / f"{i:06d}.png").write_bytes(content.getvalue() + rng.bytes(size))
    return folder


def listing(root: Path) -> Callable[[int], float]:
    """Seconds to open a class folder of so many files."""
    return lambda count: seconds(partial(load_split, str(folder_of(root, count, 8)), "train"))


def hashing(root: Path, size: int, again: bool) -> Callable[[int], float]:
    """Seconds to hash so many files of `size` bytes, or to find that they were."""

    def measure(count: int) -> float:
        data = load_split(str(folder_of(root, count, size)), "train").cast_column("image", ImageFeature(decode=False))

        def look() -> None:
            find_content(data, "image", None, "train")

        before = time.process_time()
        look()
        first = time.process_time() - before
        return seconds(look) if again else first

    return measure


def labels_of(kind: str) -> Callable[[int], float]:
    """Seconds to turn a column of so many labels into targets: class ids, or three ids of eighty per image."""
    rng = np.random.default_rng(0)

    def measure(count: int) -> float:
        if kind == "single":
            array, encoder = pa.array(rng.integers(0, 1000, count)), LabelEncoder(LabelTable.numbered(1000), SINGLE)
        else:
            flat = np.argsort(rng.random((count, 80)), 1)[:, :3].ravel()
            array = pa.ListArray.from_arrays(pa.array(np.arange(0, 3 * count + 1, 3)), pa.array(flat))
            encoder = LabelEncoder(LabelTable.numbered(80), "multi_label_classification")
        return seconds(lambda: encoder.column(Labels(array), "train"))

    return measure


def scoring(count: int) -> float:
    """Seconds to sum up and turn into metrics the scores of 64 heads on so many images of 1,000 classes."""
    logits, labels = torch.randn(256, HEADS, CLASSES), torch.randint(CLASSES, (256,))

    def run() -> None:
        sums = ClassSums(HEADS, CLASSES)
        for first in range(0, count, 256):
            sums.add(logits[: count - first], labels[: count - first])
        for scores in sums.scores():
            scores.metrics()

    return seconds(run)


def store_of(root: Path, shards: int) -> Path:
    """A store of so many shards of four images."""
    manifest = Manifest({"cls@last": (1, 8)}, {"last": (1, 1)}, 4 * shards, 1, "float16", 4, {}, is_mixed=True)
    store = TokenStore(root / str(shards), manifest)
    for shard in range(shards):
        store.write_shard(shard, [TokenBatch({"cls@last": torch.randn(4, 1, 8)})])
    store.finish(np.zeros(4 * shards, np.int64), np.arange(4 * shards, dtype=np.uint64))
    return store.folder


def opening(root: Path) -> Callable[[int], float]:
    """Seconds to open a cache of so many shards."""
    return lambda shards: seconds(partial(TokenCache, store_of(root, shards), "disk"))


def saving_share(folder: Path) -> tuple[float, float]:
    """Share of the training of 64 linear heads x 400 epochs on 1,024 images that saving takes, and its seconds."""
    head = {"pooling": "mean", "tokens": ["cls"]}
    data = {
        "dataset": "embedded:fashion-mnist",
        "train_split": "train[:1024]",
        "validation_split": "validation[:512]",
        "tokens": "cached",
        "cache": {"folder": str(folder / "tokens")},
    }
    recipe = {
        "backbone": {"name": "embedded:mae-tiny-fashion"},
        "data": {**data, "test_split": None, "augmentation": None},
        "heads": {f"linear-{i}": {**head, "learning_rate": 0.001 * (1 + i)} for i in range(HEADS)},
        "train": {"output_dir": str(folder / "run"), "num_train_epochs": 400, "batch_size": 256},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    spent = {"saving": 0.0, "all": 0.0}

    def timed(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            before = time.process_time()
            found = original(*arguments)
            spent[name] += time.process_time() - before
            return found

        return call

    for name in ("append_history", "note_validation", "_checkpoint", "save_run"):
        setattr(epochs, name, timed("saving", getattr(epochs, name)))
    trainer.run_epochs = timed("all", trainer.run_epochs)
    run_recipe(Recipe.load(folder / "recipe.yaml"))
    return spent["saving"] / spent["all"], spent["saving"]


def step_per_head(kind: str, rounds: int) -> list[float]:
    """Milliseconds per head and step, AdamW included, of 16, 64 and 256 heads; D = 384, 49 patches, B = 64."""
    found = []
    for count in (16, 64, 256):
        runs = {f"{kind}-{i}": HeadRun(KINDS[kind], RATES[i % 4]) for i in range(count)}
        states = torch.randn(64, 50, 384)
        tokens = {"last": Tokens(states[:, :1], states[:, :0], states[:, 1:], (7, 7))}
        step = step_of(make_sweep(384, runs, 10, 112), torch.randint(10, (64,)), tokens=tokens)
        found.append(1000 * min(seconds(step) for _ in range(rounds)) / count)
    return found


def main() -> None:
    """Print the tables."""
    rounds = start(__doc__, 3)
    console = Console(width=150)
    with tempfile.TemporaryDirectory(dir=".") as name:
        root = Path(name)
        table = Table("what", "per", "slope, us", "1.28 M", "100 M", "at the largest size", "limit")
        for what, per, sizes, measure, limit in measurements(root):
            slope, offset, found = line(sizes, measure)
            units = (IMAGENET, LARGE) if per == "image" else (-(-IMAGENET // PER_SHARD), -(-LARGE // PER_SHARD))
            times = [f"{offset + slope * units[i]:.1f} s" for i in range(2)]
            table.add_row(what, per, f"{1e6 * slope:.2f}", *times, f"{found[-1]:.2f} s, {sizes[-1]:,}", limit)
            if what.startswith("score"):
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        console.print(table)
        console.print(f"Peak memory of the process that scored 64 heads x 1,000 classes: {peak:.2f} GB")
        for kind in ("mean", "ep"):
            values = ", ".join(f"{value:.3f}" for value in step_per_head(kind, rounds))
            console.print(f"{kind}, ms per head and step with 16, 64, 256 heads: {values}")
        cache = make_cache(root / "cold", 8192, 384)
        size = 8192 * cache.manifest.bytes_per_row / 1e9
        for shuffled in (True, False):
            rate = size / statistics.median(read_all(cache, shuffled) for _ in range(rounds))
            console.print(f"Cold reading, {'mixed' if shuffled else 'in order'}: {rate:.2f} GB/s")
        share, spent = saving_share(root)
        console.print(f"Saving, 64 heads x 400 epochs: {spent:.1f} s, {100 * share:.1f}% of the training")


def measurements(root: Path) -> list[tuple[str, str, Sequence[int], Callable[[int], float], str]]:
    """What, per what, sizes, measurement, and what limits it."""
    files, rows = (4000, 8000, 16000), (250_000, 500_000, 1_000_000)
    return [
        ("score 64 heads, 1,000 classes", "image", (1024, 2048, 4096), scoring, "exponentials: 64 us"),
        ("open a class folder", "image", files, listing(root), "system calls: 2 us"),
        ("hash files of 100 kB", "image", (500, 1000, 2000), hashing(root, 100_000, False), "blake2b: 1 GB/s a core"),
        ("recognize hashed files", "image", files, hashing(root, 0, True), "one stat each: 2 us"),
        ("label column, one class", "image", rows, labels_of("single"), ""),
        ("label column, three classes", "image", rows, labels_of("several"), ""),
        ("order of an epoch from disk", "image", rows, lambda n: seconds(lambda: list(BlockShuffle(n, lambda: 1))), ""),
        ("open a cache", "shard", (250, 500, 1000), opening(root), "one look each: 3 us"),
    ]


if __name__ == "__main__":
    main()
