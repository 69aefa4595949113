"""The terminal."""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from attentive_probes.evaluation.results import SweepResults
    from attentive_probes.experiments.recipe import Recipe

console = Console()
if not console.is_terminal:  # a log file: wide enough for every table
    console.width = 120


def begin() -> None:
    """Begin a command whose libraries are imported.

    The terminal is left to this package: transformers and the client of the Hub tell of errors alone. The garbage
    collector, which `app` had stopped, passes over what imports have made from now on.
    """
    from transformers.utils import logging as transformers_logging

    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not sys.stderr.isatty():  # a log file, in which a bar is a line per update
        from datasets import disable_progress_bars

        disable_progress_bars()
    gc.freeze()
    gc.enable()


def show_results(results: SweepResults, folder: str, verbose: bool = False) -> None:
    """Print what a run found: a row per family and what was chosen, or every head, and where everything lies."""
    from attentive_probes.evaluation.runs.tables import families_table, has_choices, results_table, standings_table

    has_grid = has_choices(results.best_per_head)
    if verbose or not has_grid:
        console.print(results_table(results))
    if has_grid:
        console.print(families_table(results))
    if results.selection:
        console.print(standings_table(results, whole=verbose), results.selection["sentence"], sep="\n")
    console.print(f"Results: {folder}/results.json. The selected probe, {results.winner}: {folder}/best")
    console.print(f"Report: {folder}/report.html")


def show_plan(recipe: Recipe) -> None:
    """Print what a recipe would do, beside the figures of its paper."""
    from attentive_probes.evaluation.runs.tables import plan_table
    from attentive_probes.experiments.plan import plan_recipe

    plan = plan_recipe(recipe)
    console.print(plan_table(plan.heads))
    sizes = ", ".join(f"{count:,} {name}" for name, count in plan.images.items()) or "images not counted here"
    console.print(
        f"Backbone: {recipe.backbone.name}, {plan.backbone_parameters:,} parameters. {plan.num_labels} classes;"
    )
    console.print(f"{sizes}; {plan.steps:,} steps." if plan.steps else f"{sizes}.")
    if plan.cache_bytes:
        console.print(f"Token cache: {plan.cache_bytes / 1e9:,.1f} GB.")
    for note in plan.notes:
        console.print(f"- {note}", markup=False)
    if plan.theirs:
        console.print(f"The paper's own protocol: add {' '.join(plan.theirs)}", markup=False)
