"""`attentive-probes train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console


def train(
    recipe: Annotated[
        Path, typer.Argument(help="YAML file of the run, or the name of a recipe of the package, such as quickstart.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, for instance train.num_train_epochs=2 heads.ep8.dropout=0.1.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Only time every stage and say what would help; nothing is trained.")
    ] = False,
) -> None:
    """Train the heads of a recipe, select on validation, score the test split once."""
    from attentive_probes.evaluation.tables import families_table, has_choices
    from attentive_probes.experiments.recipe import Recipe
    from attentive_probes.experiments.run import profile_recipe, run_recipe
    from attentive_probes.experiments.shipped import find_recipe
    from attentive_probes.processes import process_state

    begin()
    changes = [*(overrides or []), *(["train.resume=true"] if resume else [])]
    loaded = Recipe.load(find_recipe(recipe), changes)
    if profile:
        found = profile_recipe(loaded)
        console.print(found.table(), *(f"- {line}" for line in found.advice(loaded.data.tokens)), sep="\n")
        return
    try:
        results = run_recipe(loaded)
    except KeyboardInterrupt:
        console.print("\nStopped. What is complete is kept: the same command with --resume goes on with it.")
        sys.exit(130)
    if process_state().is_main_process:
        folder = loaded.train.output_dir
        console.print(results.table())
        if has_choices(results.best_per_head):
            console.print(families_table(results))
        console.print(f"Results: {folder}/results.json. The selected probe: {folder}/probes/{results.best.name}")
        console.print(f"Report: {folder}/report.html")
