"""Whether weight decay should shrink queries: validation accuracy with and without, over three seeds.

    python benchmarks/query_decay.py

The embedded backbone and 10,000 training and 1,000 validation images of Fashion-MNIST, six epochs of batches of 256.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table
from short_runs import caches, make_sweep
from torch import nn

from attentive_probes import HeadConfig, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.training.steps import optimizers

HEADS = {
    "ep32": HeadConfig("ep", {"num_queries": 32}),
    "cae": HeadConfig("cae"),
    "aim": HeadConfig("aim", {"num_attention_heads": 8}),
}


def accuracies(weight_decay: float, splits: list[TokenCache], with_queries: bool) -> dict[str, str]:
    """Head -> mean and standard deviation of the validation accuracy over seeds."""
    rule = optimizers.is_decayed

    def is_decayed(module: nn.Module, name: str) -> bool:
        return rule(module, name) or (with_queries and name == "query")

    with tempfile.TemporaryDirectory() as folder, patch.object(optimizers, "is_decayed", is_decayed):
        sizes = {"num_train_epochs": 6, "batch_size": 256, "eval_batch_size": 500}
        arguments = ProbeTrainingArguments(folder, weight_decay=weight_decay, **sizes)
        results = ProbeTrainer(make_sweep(HEADS, seeds=3), arguments, *splits).train()
    best = {family.name: family.best for family in results.best_per_head}
    return {name: f"{one.validation:.2f} +- {one.validation_deviation:.2f}" for name, one in best.items()}


def main() -> None:
    """Print the table."""
    table = Table("weight decay", "queries", *HEADS, title="validation accuracy, mean and deviation over three seeds")
    with tempfile.TemporaryDirectory() as folder:
        splits = caches(Path(folder))
        for weight_decay in (0.1, 1.0):
            for with_queries in (True, False):
                found = accuracies(weight_decay, splits, with_queries)
                table.add_row(str(weight_decay), "decayed" if with_queries else "left alone", *found.values())
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
