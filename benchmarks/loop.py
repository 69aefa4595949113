"""What surrounds the arithmetic: the training loop's own time, the memory of a cached run, images out of workers.

    python benchmarks/loop.py --rounds 7

CPU, one thread, random weights, images and tokens. Times are ratios measured in turns in one run.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from rich.console import Console
from rich.table import Table
from sweep import grid, make_cache, make_sweep, random_tokens, ratio, start, step_of
from transformers import ViTImageProcessorPil

from attentive_probes.data.batches import Collator, make_cached_loader, make_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.sweep import HeadRun, ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.notes import head_rates
from attentive_probes.training.steps.loop import TrainingLoop
from attentive_probes.training.steps.optimizers import build_optimizer


def loop_over(sweep: ProbeSweep, cache: TokenCache, batch_size: int) -> TrainingLoop:
    """The training loop over a cache, with steps enough for any number of epochs."""
    arguments = ProbeTrainingArguments("unused", max_steps=10**6, batch_size=batch_size)
    loader = make_cached_loader(cache, StepPlan(batch_size, drop_last=True), train=True)
    train = [(list(sweep.runs), loader)]
    loop = TrainingLoop(sweep, arguments, head_rates(sweep, arguments), make_accelerator(), train, loader)
    loop.bar.disable = True
    return loop


def overhead(runs: dict[str, HeadRun], folder: Path, rounds: int) -> list[float]:
    """Time of an epoch in the training loop over that of the bare one, D = 384, B = 64, tokens kept in memory."""
    store = make_cache(folder, 1024, 384).store
    cache = TokenCache(store.folder, "memory")
    loop, bare = loop_over(make_sweep(384, runs), cache, 64), make_sweep(384, runs)
    arguments = loop.arguments
    optimizer = build_optimizer("adamw", bare.heads, head_rates(bare, arguments), 0.9)

    def bare_epoch() -> None:
        bare.train()
        for (batch,) in make_cached_loader(cache, StepPlan(64, drop_last=True), train=True):
            outputs = bare(tokens=batch["tokens"])
            losses = [torch.nn.functional.cross_entropy(o.logits, batch["labels"]) for o in outputs.values()]
            torch.stack(losses).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    epochs = iter(range(1, 10**6))
    ratios = []
    for turn in range(rounds + 1):
        calls: list[Callable[[], object]] = [lambda: loop.run_epoch(next(epochs), lambda: None), bare_epoch]
        seconds = {}
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            calls[which]()
            seconds[which] = time.process_time() - start
        ratios.append(seconds[0] / seconds[1])
    return ratios[1:]


def moments(rounds: int) -> float:
    """Time to compute the moments of 64 x 196 tokens of D = 384 over that of a step of one CAE head on them."""
    tokens, labels = random_tokens(64, 384), torch.randint(100, (64,))
    step = step_of(make_sweep(384, {"cae": HeadRun(HeadConfig("cae"))}), labels, tokens=tokens)

    def scale() -> None:
        TokenStatistics(tokens["last"].patches).layer_scale(1e-6)

    return ratio(scale, step, rounds)[0]


def anonymous_bytes() -> int:
    """Memory of this process that is no mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def memory_of_cached_run(folder: Path) -> float:
    """Peak megabytes beyond the batch in flight, over an epoch on 1.2 GB of cached tokens read from the disk."""
    loop = loop_over(make_sweep(384, grid(16)), make_cache(folder, 8192, 384), 256)
    before, peak, done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    loop.run_epoch(1, lambda: None)
    done.set()
    watcher.join()
    batch = 256 * 196 * 384 * 2
    return (peak[0] - before - batch) / 1e6


def photographs(count: int) -> Dataset:
    """JPEG images of 500 x 375 pixels."""
    rng, cells = np.random.default_rng(0), []
    for _ in range(count):
        content = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((500, 375)).save(content, "jpeg")
        cells.append({"bytes": content.getvalue(), "path": None})
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": cells, "label": [0] * count}, features=features)


def images_in(num_workers: int, rounds: int) -> tuple[float, float, float]:
    """Images per second with raw pixels over that with normalized ones; the ratio and both rates."""
    config = make_sweep(384, {"mean": HeadRun(HeadConfig("mean"))}, classes=2).config
    config.id2label, config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    split = ImageSplit("train", photographs(512), ImageOptions(check=False), LabelEncoder.of_probe(config))
    processor = ViTImageProcessorPil(size={"height": 224, "width": 224})
    pairs = []
    for _ in range(rounds):
        rates = []
        for raw in (True, False):
            collator = Collator(split, processor, (224, 224), Augmentation(), raw=raw)
            start = time.perf_counter()
            loader = make_loader(split, collator, StepPlan(32, drop_last=True), train=True, num_workers=num_workers)
            count = sum(len(batch["labels"]) for (batch,) in loader)
            rates.append(count / (time.perf_counter() - start))
        pairs.append(rates)
    medians = [statistics.median(rates) for rates in zip(*pairs, strict=True)]
    return statistics.median(raw / plain for raw, plain in pairs), medians[0], medians[1]


def main() -> None:
    """Print the table."""
    rounds = start(__doc__, 7)
    table = Table("what", "measured", "floor", "aim", title=f"torch {torch.__version__}, CPU")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        single = {"ep": HeadRun(HeadConfig("ep", {"num_queries": 8}))}
        for name, runs in (("one EP-8 head", single), ("16 heads", grid(16))):
            extra = statistics.median(overhead(runs, Path(folder) / name, rounds)) - 1
            table.add_row(f"overhead of the loop, {name}", f"{100 * extra:+.1f}%", "10%", "3%")
        memory = memory_of_cached_run(Path(folder) / "large")
        table.add_row("memory of a cached run beyond the batch", f"{memory:.0f} MB", "200 MB", "50 MB")
    table.add_row("token moments / step of one CAE head", f"{100 * moments(rounds):.1f}%")
    for workers in (0, 2):
        ratio, raw, plain = images_in(workers, rounds)
        table.add_row(f"images in, {workers} workers: raw / normalized", f"{ratio:.2f} ({raw:.0f} / {plain:.0f} per s)")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
