"""Whether `choose` on subsets picks the backbone that the whole comparison picks, over draws of the subsets.

    python benchmarks/choosing.py DATA BACKBONE BACKBONE ... --images 2700 --subset 900 --draws 10

The whole comparison judges every backbone on `--images` training and validation images, three folds, the heads of
`attentive-probes choose` at one rate and one seed. A draw begins with 300 images of the data and stops at `--subset`.
Tokens are cached, so that only what is new runs the backbones; `--fresh` times one choice with an empty cache first.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from attentive_probes.choosing.choose import choose_backbone
from attentive_probes.choosing.rounds import behind_best, judge, round_recipe
from attentive_probes.experiments.automatic import AutoOptions, automatic_recipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.scores.statistics import clustered_error


def main(
    data: str,
    backbones: list[str],
    images: Annotated[int, typer.Option()] = 2700,
    subset: Annotated[int, typer.Option()] = 900,
    draws: Annotated[int, typer.Option()] = 10,
    tokens: Annotated[str, typer.Option(help="Folder of token caches.")] = "outputs/tokens",
    epochs: Annotated[int, typer.Option(help="Of every head; 0 fits the number of images.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Time one choice with an empty cache first.")] = False,
) -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        wish = AutoOptions(None, Path(folder) / "run")
        if fresh:
            start = time.perf_counter()
            changes = [f"data.cache.folder={folder}/tokens", f"train.num_train_epochs={epochs}"]
            found = choose_backbone(data, backbones, wish, most_images=subset, changes=changes)
            print(f"a choice with an empty cache: {found.backbone}, {time.perf_counter() - start:.0f} s", flush=True)
        changes = [f"data.cache.folder={tokens}", f"train.num_train_epochs={epochs}"]
        rounds = []
        for name in backbones:
            text = automatic_recipe(data, AutoOptions(name, wish.output_dir, layers=True))
            rounds.append(judge(round_recipe(Recipe.of_text(text, changes), images), with_speed=False))
        behind = behind_best(rounds)
        title = f"{data}, {rounds[0].num_images} images, three folds"
        table = Table("backbone", "best head", "accuracy", "behind", title=title)
        for one in rounds:
            values = behind[one.backbone]
            gap = f"{100 * values.mean():.2f} +- {100 * clustered_error(values):.2f}"
            table.add_row(Path(one.backbone).name, one.best.name, f"{100 * one.best.by_image.mean():.2f}", gap)
        Console(width=120).print(table)
        best = min(behind, key=lambda name: behind[name].mean())
        picks, seconds = Counter[str](), []
        for draw in range(draws):
            found = choose_backbone(
                data, backbones, wish, most_images=subset, draw=draw + 1, changes=changes, with_speed=False
            )
            picks[found.backbone] += 1
            seconds.append(found.seconds)
            print(draw, Path(found.backbone).name, f"{found.seconds:.0f} s", flush=True)
        print(f"{picks[best]} of {draws} draws pick {Path(best).name}; median {np.median(seconds):.0f} s a choice")


if __name__ == "__main__":
    typer.run(main)
