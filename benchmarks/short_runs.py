"""What settled batch statistics are worth in short runs: validation accuracy with them and with PyTorch's own average.

    python benchmarks/short_runs.py

The embedded backbone and 10,000 training and 1,000 validation images of Fashion-MNIST, batches of 256, five seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_split
from attentive_probes.data.open_split import open_split
from attentive_probes.data.token_cache import CacheOptions, TokenCache
from attentive_probes.training.steps import epochs

HEADS = {
    "linear": HeadConfig("mean"),
    "ep32": HeadConfig("ep", {"num_queries": 32}),
    "aim": HeadConfig("aim", {"num_attention_heads": 8}),
}
STEPS = (5, 20, 100)


def make_sweep(heads: Mapping[str, HeadConfig] = HEADS, seeds: int = 5) -> ProbeSweep:
    """Some heads with several seeds each."""
    runs = {
        f"{name}-{seed}": HeadRun(head, learning_rate=0.01, seed=seed, family=name)
        for name, head in heads.items()
        for seed in range(seeds)
    }
    labels = load_split("embedded:fashion-mnist", "train").features["label"].names
    return ProbeSweep.from_backbone("embedded:mae-tiny-fashion", runs, labels=labels)


def caches(folder: Path) -> list[TokenCache]:
    """Tokens of training and validation images."""
    sweep, found = make_sweep(), []
    encoder = LabelEncoder.of_probe(sweep.config)
    for name in ("train", "validation"):
        split = open_split(name, load_split("embedded:fashion-mnist", name), ImageOptions(check=False), encoder)
        options = CacheOptions(str(folder))
        found.append(build_token_cache(sweep.backbone, split, sweep.readings, sweep.image_processor, options))
    return found


def accuracies(steps: int, splits: list[TokenCache], is_settled: bool) -> dict[str, str]:
    """Head -> mean and standard deviation of the validation accuracy over seeds."""
    raw = patch.object(epochs, "settled", lambda sweep: nullcontext())
    with tempfile.TemporaryDirectory() as folder, nullcontext() if is_settled else raw:
        arguments = ProbeTrainingArguments(folder, max_steps=steps, batch_size=256, eval_batch_size=500)
        results = ProbeTrainer(make_sweep(), arguments, *splits).train()
    best = {family.name: family.best for family in results.best_per_head}
    return {name: f"{one.validation:.2f} +- {one.validation_deviation:.2f}" for name, one in best.items()}


def main() -> None:
    """Print the table."""
    table = Table("steps", "statistics", *HEADS, title="validation accuracy, mean and deviation over five seeds")
    with tempfile.TemporaryDirectory() as folder:
        splits = caches(Path(folder))
        for steps in STEPS:
            for is_settled in (False, True):
                found = accuracies(steps, splits, is_settled)
                table.add_row(str(steps), "settled" if is_settled else "PyTorch's", *found.values())
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
