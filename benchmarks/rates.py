"""Which learning rate each pooling wants: validation accuracy at nine rates, on any backbones and data sets.

    OMP_NUM_THREADS=1 python benchmarks/rates.py embedded:mae-tiny-fashion=embedded:fashion-mnist [BACKBONE=DATA ...]

Of every data set, 40 training images per class (`--shots`) and as many for validation, drawn by class; batch size and
epochs as they are where none are named. Rates are compared by their regret: how far validation lies below the best rate
of the same pooling on the same set, which one seed of so few images tells to a point or two.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.poolings import POOLINGS, pooling_options

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
ALF = {"tokens": ["cls", "mean"], "token_norm": "l2", "token_noise": 0.05, "feature_norm": "batchnorm_affine"}
SPECIAL = {"alf": ALF, "concat": {"tokens": ["mean"], "feature_norm": "batchnorm"}}


def options_of(pooling: str) -> dict[str, int]:
    """Eight attention heads, which divide every width that is measured."""
    return {"num_attention_heads": 8} if "num_attention_heads" in pooling_options(pooling) else {}


def accuracies(backbone: str, dataset: str, images: int, poolings: list[str], tokens: str) -> dict[str, list[float]]:
    """Pooling -> best validation accuracy at each rate."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        for pooling in poolings:
            content = {
                "backbone": {"name": backbone},
                "data": {
                    "dataset": dataset,
                    "validation_fraction": 0.5,
                    "shots": images,
                    "images": {"unreadable": "skip"},
                    "augmentation": None,
                    "tokens": "cached",
                    "cache": {"folder": tokens},
                },
                "heads": {pooling: {"pooling": pooling, "options": options_of(pooling), **SPECIAL.get(pooling, {})}},
                "grid": {"learning_rate": RATES},
                "train": {"output_dir": f"{folder}/{pooling}"},
            }
            path.write_text(json.dumps(content))
            heads = run_recipe(Recipe.load(path)).heads
            found[pooling] = [head.validation.get("top1", 0.0) for head in heads]
            print(pooling, [f"{value:.1f}" for value in found[pooling]], flush=True)
    return found


def main(
    pairs: Annotated[list[str], typer.Argument(help="BACKBONE=DATA")],
    shots: Annotated[int, typer.Option(help="Training images per class; validation has as many.")] = 40,
    pooling: Annotated[list[str] | None, typer.Option()] = None,
    tokens: Annotated[str, typer.Option(help="Folder of token caches.")] = "outputs/tokens",
    output: Annotated[Path | None, typer.Option(help="Write all accuracies here, as JSON.")] = None,
) -> None:
    """Print the table."""
    names = pooling or list(POOLINGS)
    found = [accuracies(*pair.rsplit("=", 1), shots, names, tokens) for pair in pairs]
    if output is not None:
        output.write_text(json.dumps(dict(zip(pairs, found, strict=True)), indent=1))
    table = Table("pooling", *(f"{rate:g}" for rate in RATES), "best", title="mean regret in points of accuracy")
    for name in names:
        values = np.array([one[name] for one in found])
        regret = (values.max(1, keepdims=True) - values).mean(0)
        table.add_row(name, *(f"{value:.1f}" for value in regret), f"{RATES[int(regret.argmin())]:g}")
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
