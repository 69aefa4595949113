"""The training engine: sweeps against single runs, cached against online tokens, shuffled against sequential reading.

    python benchmarks/sweep.py --rounds 5

CPU, one thread, random weights, images and tokens. Everything is a ratio of times measured in turns in one run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import ViTConfig

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.backbones import VisionBackbone, find_geometry
from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.store.token_store import Manifest, TokenBatch, TokenStore
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.machine.memory import keep_freed_memory
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.tokens import Tokens
from attentive_probes.training.steps.optimizers import HeadRates, build_optimizer

SIZES = {384: (6, 1536), 768: (12, 3072)}
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
KINDS = {
    "mean": HeadConfig("mean"),
    "ep": HeadConfig("ep", {"num_queries": 8}),
    "abmilp": HeadConfig("abmilp"),
    "aim": HeadConfig("aim", {"num_attention_heads": 8}),
}


def make_sweep(width: int, runs: dict[str, HeadRun], classes: int = 100, pixels: int = 224) -> ProbeSweep:
    """Heads on an untrained ViT of patch 16."""
    heads, intermediate = SIZES[width]
    config = ViTConfig(hidden_size=width, num_attention_heads=heads, intermediate_size=intermediate, image_size=pixels)
    geometry = find_geometry(config, (pixels, pixels))
    options = {"num_labels": classes, "problem_type": "single_label_classification", **geometry.to_dict()}
    probe_config = ProbeConfig(backbone_config=config.to_dict(), **options)
    return ProbeSweep(probe_config, VisionBackbone.from_config(config, geometry), runs)


def grid(count: int) -> dict[str, HeadRun]:
    """`count` heads of mixed kinds and learning rates."""
    runs = [(kind, rate, HeadRun(head, rate)) for rate in RATES for kind, head in KINDS.items()]
    return {f"{k}-{r}-{i}": run for i, (k, r, run) in enumerate((runs * (count // len(runs) + 1))[:count])}


def step_of(sweep: ProbeSweep, labels: torch.Tensor, **inputs: object) -> Callable[[], None]:
    """Forward, summed loss, backward, AdamW."""
    rates = {name: HeadRates(run.learning_rate or 1e-3, 0.0) for name, run in sweep.runs.items()}
    optimizer = build_optimizer("adamw", sweep.heads, rates, 0.9)
    sweep.train()

    def step() -> None:
        outputs = sweep(**inputs)
        torch.stack([torch.nn.functional.cross_entropy(o.logits, labels) for o in outputs.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ratio(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float, float]:
    """Median of first / second over rounds, and the median seconds of both."""
    pairs = []
    for turn in range(rounds + 1):
        seconds = {}
        for name, call in (("first", first), ("second", second))[:: 1 if turn % 2 else -1]:
            start = clock()
            call()
            seconds[name] = clock() - start
        pairs.append((seconds["first"], seconds["second"]))
    pairs = pairs[1:]  # the first round warms up
    return statistics.median(a / b for a, b in pairs), *(statistics.median(x) for x in zip(*pairs, strict=True))


def random_tokens(batch: int, width: int) -> dict[str, Tokens]:
    """The last tap of a ViT."""
    states = torch.randn(batch, 197, width)
    return {"last": Tokens(states[:, :1], states[:, :0], states[:, 1:], (14, 14))}


def one_sweep_or_sixteen_runs(rounds: int) -> tuple[float, float, float]:
    """Sixteen probes on cached tokens, D = 384: one sweep's step over the steps of sixteen runs."""
    tokens, labels = random_tokens(64, 384), torch.randint(100, (64,))
    together = step_of(make_sweep(384, grid(16)), labels, tokens=tokens)
    alone = [step_of(make_sweep(384, {name: run}), labels, tokens=tokens) for name, run in grid(16).items()]
    return ratio(together, lambda: [step() for step in alone] and None, rounds)


def many_heads_online(rounds: int) -> tuple[float, float, float]:
    """64 heads online on a ViT-B/16: their step over that of one EP-8 head."""
    pixels, labels = torch.rand(16, 3, 224, 224), torch.randint(100, (16,))
    many = step_of(make_sweep(768, grid(64)), labels, pixel_values=pixels)
    one = step_of(make_sweep(768, {"ep": HeadRun(KINDS["ep"])}), labels, pixel_values=pixels)
    return ratio(many, one, rounds)


def cached_or_online(rounds: int, folder: Path) -> tuple[float, float, float]:
    """ViT-S/16 with one EP-8 head: a step on cached tokens, reading included, over a step on images."""
    sweep = make_sweep(384, {"ep": HeadRun(KINDS["ep"])})
    cache = make_cache(folder / "small", 256, 384)
    pixels, labels = torch.rand(16, 3, 224, 224), torch.randint(100, (16,))
    order = np.random.default_rng(0)

    def cached() -> None:
        batch = cache.__getitems__(order.permutation(256)[:16])
        step_of(sweep, batch["labels"], tokens=batch["tokens"])()

    return ratio(cached, step_of(sweep, labels, pixel_values=pixels), rounds)


def make_cache(folder: Path, images: int, width: int) -> TokenCache:
    """A cache of random patches in float16."""
    folder.mkdir(parents=True)
    manifest = Manifest({"patches@last": (196, width)}, {"last": (14, 14)}, images, 1, "float16", 512, {})
    store = TokenStore(folder, manifest)
    for shard in range(manifest.num_shards):
        rows = store.rows_of(shard)
        store.write_shard(shard, [TokenBatch({"patches@last": torch.randn(len(rows), 196, width)})])
    store.finish(np.arange(images) % 100, np.arange(images, dtype=np.uint64))
    return TokenCache(folder, "disk")


def read_all(cache: TokenCache, shuffled: bool) -> float:
    """Seconds to read all batches of 64 after the files were dropped from the page cache, which spares mapped ones."""
    cache.store._files._open.clear()
    for path in cache.store.folder.rglob("*.bin"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cache.epoch += 1
    start = time.perf_counter()
    for _ in make_cached_loader(cache, StepPlan(64), train=shuffled):
        pass
    return time.perf_counter() - start


def shuffled_or_sequential(rounds: int, folder: Path) -> tuple[float, float, float]:
    """Rate of shuffled over that of sequential reading of the same 0.6 GB of cached tokens."""
    cache = make_cache(folder / "large", 4096, 384)
    pairs = [(read_all(cache, True), read_all(cache, False)) for _ in range(rounds)]
    return statistics.median(b / a for a, b in pairs), *(statistics.median(x) for x in zip(*pairs, strict=True))


def start(description: str | None, rounds: int) -> int:
    """One thread, seed 0; the number of rounds from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()  # as a training loop begins
    return parser.parse_args().rounds


def main() -> None:
    """Print the table."""
    rounds = start(__doc__, 5)
    table = Table("what", "ratio", "first ms", "second ms", "floor", "aim", title=f"torch {torch.__version__}, CPU")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for name, measured, floor, aim in (
            ("16 probes, one sweep / 16 runs", one_sweep_or_sixteen_runs(rounds), "0.5", "0.3"),
            ("64 heads online / one head, ViT-B/16", many_heads_online(max(2, rounds // 2)), "1.2", "1.05"),
            ("cached step / online step, ViT-S/16", cached_or_online(rounds, Path(folder)), "0.02", "0.005"),
            ("shuffled / sequential reading rate", shuffled_or_sequential(rounds, Path(folder)), "0.6", "0.9"),
        ):
            value, first, second = measured
            table.add_row(name, f"{value:.3f}", f"{1000 * first:.1f}", f"{1000 * second:.1f}", floor, aim)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
