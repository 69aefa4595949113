"""How fast attention leaves uniform: its entropy against the steps of a training, by pooling, as a figure.

    OMP_NUM_THREADS=1 python benchmarks/attention_entropy.py OUTPUT.png NAME=BACKBONE=DATA=TOKENS [...]

Every pooling at its automatic rates, EP also with its queries at the rate of the rest; one seed; batch size and epochs
as `attentive-probes train DATA` takes them. Drawn is the entropy on validation after each epoch over that of uniform
attention, the mean over queries and images. DATA may name a split of its own for training, as `folder[:300]`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import typer
import yaml

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import ENTROPY
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe

HEADS = {
    "ep": {"pooling": "ep", "options": {"num_queries": 8}},
    "ep, one rate": {"pooling": "ep", "options": {"num_queries": 8}, "query_learning_rate": 0.003},
    "abmilp": {"pooling": "abmilp"},
    "aim": {"pooling": "aim", "options": {"num_attention_heads": 8}},
    "siglip": {"pooling": "siglip"},
    "simpool": {"pooling": "simpool"},
    "cae": {"pooling": "cae"},
    "weighted": {"pooling": "weighted"},
}


def trained(backbone: str, data: str, tokens: str, cache: str) -> SweepResults:
    """A run with all of the heads."""
    source, _, part = data.partition("[")
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "backbone": {"name": backbone},
            "data": {
                **{"dataset": source, "train_split": f"train[{part}" if part else "train"},
                **{"validation_split": "validation", "test_split": None, "augmentation": None, "tokens": "cached"},
                "cache": {"folder": cache},
            },
            "heads": {
                name.replace(", ", "-").replace(" ", "-"): {**head, "tokens": [tokens]} for name, head in HEADS.items()
            },
            "train": {"output_dir": f"{folder}/run"},
            "evaluation": {"report": False},
        }
        return run_recipe(Recipe.of_text(yaml.safe_dump(content, sort_keys=False)))


def main(
    output: Annotated[Path, typer.Argument()],
    sets: Annotated[list[str], typer.Argument(help="NAME=BACKBONE=DATA=TOKENS")],
    cache: Annotated[str, typer.Option(help="Folder of token caches.")] = "outputs/tokens",
) -> None:
    """Draw the figure."""
    figure, axes = plt.subplots(1, len(sets), figsize=(4 * len(sets), 3.2), sharey=True, squeeze=False)
    for axis, entry in zip(axes[0], sets, strict=True):
        name, backbone, data, tokens = entry.split("=")
        results = trained(backbone, data, tokens, cache)
        for label, head in zip(HEADS, results.heads, strict=True):
            values = [row[ENTROPY] / head.attention_bound for row in head.history if row.get(ENTROPY) is not None]
            axis.plot(range(1, len(values) + 1), values, label=label, linestyle="--" if "one" in label else "-")
            print(name, label, f"{values[0]:.3f} {values[-1]:.3f}", flush=True)
        axis.set(title=name, xlabel="epoch", ylim=(0, 1.03))
    axes[0][0].set_ylabel("entropy of attention / uniform")
    axes[0][-1].legend(fontsize=7, loc="lower left", ncols=2)
    figure.tight_layout()
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    typer.run(main)
