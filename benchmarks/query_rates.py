"""How fast queries should learn beside the rest of a head: accuracy, spread of attention, and attention on the object.

    OMP_NUM_THREADS=1 python benchmarks/query_rates.py BACKBONE DATA [KEY=VALUE ...] --tokens patches@block:6

Every pooling at some multiples of its rate, its queries at some multiples of that, two seeds; batch size and epochs as
`attentive-probes train DATA` takes them, unless a change of the recipe says otherwise (`train.batch_size=64`). DATA has
a validation and a test split (`data.test_split=test[:2000]`). Spread is the share of tokens that attention is spread
over, by its entropy on validation. With `--masks`, a folder of masks of the test images in class folders, attention on
the object of the test folder `DATA/test` over chance, of all queries and of the best one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from rich.console import Console
from rich.table import Table

from attentive_probes import ProbeForImageClassification
from attentive_probes.analysis.on_object import mask_of, on_object
from attentive_probes.evaluation.prediction import find_images
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.poolings import find_pooling, pooling_options

OPTIONS = {"num_queries": 8, "num_attention_heads": 8}


def heads_of(pooling: str, tokens: str, rates: list[float], speeds: list[float]) -> dict[str, Any]:
    """Heads of one pooling, named by their rate over `auto` and the rate of queries over that."""
    auto = find_pooling(pooling).learning_rate
    options = {key: value for key, value in OPTIONS.items() if key in pooling_options(pooling)}
    head = {"pooling": pooling, "options": options, "tokens": [tokens]}
    return {
        f"{pooling}+{rate:g}+{speed:g}": {
            **head,
            "learning_rate": auto * rate,
            "query_learning_rate": auto * rate * speed,
        }
        for rate in rates
        for speed in speeds
    }


def on_objects(probe: Path, data: str, masks: Path) -> tuple[float, float]:
    """Attention on the object over chance, of all queries and of the best."""
    files = find_images([Path(data) / "test"])
    found = on_object(ProbeForImageClassification.from_pretrained(probe), files, [mask_of(f, masks) for f in files])
    return found.attention, found.best_query


def main(
    backbone: Annotated[str, typer.Argument()],
    data: Annotated[str, typer.Argument()],
    changes: Annotated[list[str] | None, typer.Argument(help="Changes of the recipe.")] = None,
    tokens: Annotated[str, typer.Option()] = "patches",
    pooling: Annotated[list[str] | None, typer.Option(help="By default ep.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Over `auto`; by default 1.")] = None,
    speed: Annotated[list[float] | None, typer.Option(help="Of queries over the rest; by default 1 to 300.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Of the test images.")] = None,
    cache: Annotated[str, typer.Option(help="Folder of token caches.")] = "outputs/tokens",
) -> None:
    """Print the table."""
    table = Table("head", "rate", "queries", "validation", "test", "spread", *(["on object", "best"] if masks else []))
    for name in pooling or ["ep"]:
        with tempfile.TemporaryDirectory() as folder:
            content = {
                "backbone": {"name": backbone},
                "data": {
                    **{"dataset": data, "validation_split": "validation", "test_split": "test"},
                    **{"augmentation": None, "tokens": "cached", "cache": {"folder": cache}},
                },
                "heads": heads_of(name, tokens, rate or [1.0], speed or [1.0, 10.0, 30.0, 60.0, 100.0, 300.0]),
                "grid": {"seed": [0, 1]},
                "train": {"output_dir": f"{folder}/run"},
                "evaluation": {"report": False},
            }
            results = run_recipe(Recipe.of_text(yaml.safe_dump(content, sort_keys=False), changes or []))
            for family in dict.fromkeys(head.family for head in results.heads):
                members = [head for head in results.heads if head.family == family]
                rows = [
                    [h.validation["top1"], (h.test or {})["top1"], 100 * h.attention.share if h.attention else 100.0]
                    for h in members
                ]
                if masks is not None:
                    for row, head in zip(rows, members, strict=True):
                        row += on_objects(Path(folder) / "run" / "probes" / head.name, data, masks)
                table.add_row(*family.split("+"), *(f"{value:.2f}" for value in np.mean(rows, axis=0)))
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
