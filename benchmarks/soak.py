"""Hours of training: does memory grow, do files stay open?

    python benchmarks/soak.py --seconds 7200 --folder outputs/soak

256 heads of four kinds on 200,000 synthetic images, cached as 16 patches of width 32 in 196 shards that are read from
the disk; CPU, one thread. Every ten seconds the private memory (USS), open files and threads are written to `soak.csv`.
Printed is the slope of a line through the second half of the samples, with its standard error: through twenty medians,
for neighbours in time are alike, and writing the state is a peak.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.console import Console
from transformers import ViTConfig, ViTImageProcessor

from attentive_probes import HeadConfig, HeadRun, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.backbones import VisionBackbone, find_geometry
from attentive_probes.data.store.token_store import Manifest, TokenBatch, TokenStore
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.steps.loop import Step, TrainingLoop

IMAGES, HEADS, CLASSES, WIDTH, PIXELS = 200_000, 256, 10, 32, 64
KINDS = (
    HeadConfig("mean"),
    HeadConfig("ep", {"num_queries": 4}, dropout=0.1),
    HeadConfig("abmilp"),
    HeadConfig("mean", feature_norm="layernorm"),
)


class Stopped(Exception):
    """The time is over."""


def make_sweep() -> ProbeSweep:
    """256 heads of four kinds, at 64 learning rates, on an untrained ViT."""
    config = ViTConfig(hidden_size=WIDTH, num_attention_heads=2, intermediate_size=64, image_size=PIXELS)
    geometry = find_geometry(config, (PIXELS, PIXELS))
    options = {"num_labels": CLASSES, "problem_type": "single_label_classification", **geometry.to_dict()}
    runs = {f"head-{i}": HeadRun(KINDS[i % 4], 1e-4 * 1.1 ** (i // 4)) for i in range(HEADS)}
    sweep = ProbeSweep(
        ProbeConfig(backbone_config=config.to_dict(), **options), VisionBackbone.from_config(config, geometry), runs
    )
    sweep.image_processor = ViTImageProcessor(size={"height": PIXELS, "width": PIXELS})
    return sweep


def make_cache(folder: Path, images: int, sweep: ProbeSweep) -> TokenCache:
    """Tokens around a mean for each class."""
    if not folder.exists():
        key = {"weights": sweep.backbone.hash_weights()}
        sizes = (images, 1, "float16", 1024, key)
        store = TokenStore(folder, Manifest({"patches@last": (16, WIDTH)}, {"last": (4, 4)}, *sizes))
        means, labels = torch.randn(CLASSES, 1, WIDTH), torch.randint(CLASSES, (images,))
        for shard in range(store.manifest.num_shards):
            rows = store.rows_of(shard)
            tokens = means[labels[rows.start : rows.stop]] + 4 * torch.randn(len(rows), 16, WIDTH)
            store.write_shard(shard, [TokenBatch({"patches@last": tokens})])
        store.finish(labels.numpy(), np.arange(images, dtype=np.uint64))
    return TokenCache(folder, "disk")


def watch(path: Path, trainer: ProbeTrainer, is_over: threading.Event, interval: float) -> None:
    """Write a line every so many seconds."""
    process, start = psutil.Process(), time.monotonic()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", "uss_mb", "files", "threads", "epochs"])
        while not is_over.wait(interval):
            epochs = len(trainer.results.heads[0].history)
            memory = process.memory_full_info().uss / 1e6
            row = (time.monotonic() - start, memory, process.num_fds(), process.num_threads(), epochs)
            writer.writerow([f"{value:.1f}" for value in row])
            file.flush()


def slope_of(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Change per hour of a line through twenty medians of the second half, and its standard error."""
    half = len(seconds) // 2
    parts = [np.array_split(array[half:], 20) for array in (seconds / 3600, values)]
    hours, middles = (np.array([np.median(part) for part in array]) for array in parts)
    (slope, _), covariance = np.polyfit(hours, middles, 1, cov=True)
    return float(slope), float(covariance[0, 0] ** 0.5)


def main() -> None:
    """Train for a while and print what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7200)
    parser.add_argument("--interval", type=float, default=10)
    parser.add_argument("--folder", type=Path, default=Path("outputs/soak"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sweep = make_sweep()
    train = make_cache(options.folder / "train", IMAGES, sweep)
    validation = make_cache(options.folder / "validation", 2000, sweep)
    arguments = ProbeTrainingArguments(str(options.folder / "run"), num_train_epochs=10_000, overwrite=True)
    trainer = ProbeTrainer(sweep, arguments, train, validation)
    is_over, end = threading.Event(), time.monotonic() + options.seconds
    path = options.folder / "soak.csv"
    watcher = threading.Thread(target=watch, args=(path, trainer, is_over, options.interval), daemon=True)
    take_step = TrainingLoop._step

    def step(loop: TrainingLoop, parts: Step) -> None:
        if time.monotonic() > end:
            raise Stopped
        take_step(loop, parts)
        steps.append(1)

    steps: list[int] = []
    TrainingLoop._step = step  # type: ignore[method-assign]
    watcher.start()
    with contextlib.suppress(Stopped):
        trainer.train()
    is_over.set()
    watcher.join()
    report(path, len(steps))


def report(path: Path, steps: int) -> None:
    """Print what the samples say."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    console, half = Console(width=120), len(rows) // 2
    slope, error = slope_of(rows[:, 0], rows[:, 1])
    console.print(f"{steps:,} steps of {HEADS} heads on {IMAGES:,} images, {rows[-1, 0] / 60:.0f} minutes")
    console.print(f"private memory {rows[half:, 1].min():.0f} to {rows[half:, 1].max():.0f} MB in the second half")
    console.print(f"slope {slope:+.1f} MB an hour, standard error {error:.1f}")
    for column, name in ((2, "files"), (3, "threads")):
        console.print(f"{name}: {rows[half:, column].min():.0f} to {rows[half:, column].max():.0f}")


if __name__ == "__main__":
    main()
