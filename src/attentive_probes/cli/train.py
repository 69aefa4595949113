"""`attentive-probes train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console, show_plan, show_results
from attentive_probes.cli.options import Backbone, GroupColumn, GroupPattern, ImagesColumn, Kind, LabelColumns


def train(
    recipe: Annotated[
        str, typer.Argument(help="Images in class folders, or any other data; or a recipe: a YAML file, or its name.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, for instance train.num_train_epochs=2 heads.ep8.dropout=0.1.")
    ] = None,
    backbone: Backbone = None,
    output: Annotated[Path | None, typer.Option(help="For data: folder of the run.")] = None,
    time: Annotated[str | None, typer.Option(help="For data: how long it may take, for instance 10m or 2h.")] = None,
    group_column: GroupColumn = None,
    group_pattern: GroupPattern = None,
    problem: Kind = None,
    image_column: ImagesColumn = None,
    label_column: LabelColumns = None,
    refit: Annotated[bool, typer.Option("--refit", help="For data: train on validation images in the end.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Only time every stage and say what would help; nothing is trained.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show plan, parameters and costs; nothing is downloaded.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every head of a grid.")] = False,
) -> None:
    """Train probes on images, or the heads of a recipe; select on validation, score the test split once."""
    from attentive_probes.experiments.automatic import AutoOptions
    from attentive_probes.experiments.options import find_run
    from attentive_probes.experiments.run import profile_recipe, run_recipe
    from attentive_probes.machine.processes import process_state

    begin()
    options = AutoOptions(backbone, output, group_column, group_pattern, problem, image_column, label_column, refit)
    changes = [*(overrides or []), *(["train.resume=true"] if resume else [])]
    loaded = find_run(recipe, options, changes, time)
    if profile:
        found = profile_recipe(loaded)
        console.print(found.table(), *(f"- {line}" for line in found.advice(loaded.data.tokens)), sep="\n")
        return
    if dry_run:
        show_plan(loaded)
        return
    try:
        results = run_recipe(loaded)
    except KeyboardInterrupt:
        console.print("\nStopped. What is complete is kept: the same command with --resume goes on with it.")
        sys.exit(130)
    if process_state().is_main_process:
        show_results(results, loaded.train.output_dir, verbose)
