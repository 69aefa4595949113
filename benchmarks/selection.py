"""How far what is selected lies below the best candidate in hindsight: random splits of small sets, two ways to select.

    OMP_NUM_THREADS=1 python benchmarks/selection.py NAME=DATA[:SHARE] ... --splits 20

Of every set, a fifth is the test split and a tenth of the rest validation; of training and validation, `SHARE` is kept;
all of it another draw for every split. Candidates: the heads of `attentive-probes train` at three rates and two seeds,
logistic regressions and k-NN on tokens of the embedded backbone; twelve epochs. One validation split selects the best
mean over seeds among heads, each at its best epoch, as runs without `selection` do; folds select by five-fold
cross-validation among heads and logistic regressions, with the rule of one standard error and without, heads at the end
of their schedule. Regret is the test accuracy of the best candidate, of either way, less that of the selected one.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from attentive_probes.data.splitting.folds import folds_of
from attentive_probes.evaluation.runs.candidates import choose
from attentive_probes.experiments.automatic import AutoOptions
from attentive_probes.experiments.options import find_run
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.add_references import add_references
from attentive_probes.experiments.steps.cache_tokens import cache_splits
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.probe.making.describe import reading_of
from attentive_probes.training.cross_validation import cross_validate
from attentive_probes.training.fit import fresh
from attentive_probes.training.trainer import ProbeTrainer

WAYS = ("one validation split", "folds", "folds, one standard error")


def regrets(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Way of selecting -> regret, of one split."""
    sweep, _, opened = prepare(recipe)
    references = recipe.evaluation.references
    readings = [*sweep.readings, *(reading_of(sweep.config, one.head) for one in references.values())]
    caches = cache_splits(recipe.data, sweep, opened, list(dict.fromkeys(readings)), recipe.train, {}, True)
    results = []
    for select_epoch in (True, False):
        arguments = replace(recipe.train, output_dir=str(folder / str(select_epoch)), select_epoch=select_epoch)
        trainer = ProbeTrainer(fresh(sweep), arguments, caches["train"], caches["validation"])
        trainer.train()
        trainer.test(caches["test"])
        results.append(trainer.results)
    splits = {name: caches[name] for name in ("train", "validation", "test")}
    add_references(references, trainer, splits)
    pool = caches["pool"]
    assert pool is not None
    folds = folds_of(pool.labels.numpy(), 5, recipe.data.split_seed)
    candidates = cross_validate(sweep, references, recipe.train, pool, folds, make_accelerator())
    before, after = ({head.name: head.test["top1"] for head in one.heads} for one in results)
    after |= {one.name: one.test["top1"] for one in results[1].references}
    best = max(*before.values(), *after.values())
    found = {WAYS[0]: best - before[results[0].best.name]}
    for way, rule in zip(WAYS[1:], (False, True), strict=True):
        name = choose(candidates, one_standard_error=rule).winner
        winner = next(one for one in candidates if one.name == name)
        found[way] = best - after[name if winner.heads else winner.family]
    return found


def main(
    sets: Annotated[list[str], typer.Argument(help="NAME=DATA[:SHARE]")],
    splits: Annotated[int, typer.Option()] = 20,
    tokens: Annotated[str, typer.Option(help="Folder of token caches.")] = "outputs/tokens",
    output: Annotated[Path | None, typer.Option(help="Write all regrets here, as JSON.")] = None,
) -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    everything: dict[str, list[dict[str, float]]] = {}
    for entry in sets:
        name, _, place = entry.partition("=")
        source, _, share = place.rpartition(":") if place.rpartition(":")[2].startswith("0.") else (place, "", "1.0")
        for seed in range(splits):
            with tempfile.TemporaryDirectory() as folder:
                changes: list[Any] = [
                    f"data.split_seed={seed}",
                    f"data.cache.folder={tokens}",
                    "train.num_train_epochs=12",
                ]
                changes += [
                    "data.validation_split=null",
                    "data.test_split=null",
                    "data.test_fraction=0.2",
                    "selection.folds=5",
                ]
                changes += ["grid.seed=[0,1]", f"data.fraction={share}", f"data.draw={seed}"]
                recipe = find_run(source, AutoOptions(None, Path(folder) / "run"), changes)
                everything.setdefault(name, []).append(regrets(recipe, Path(folder)))
                print(name, seed, everything[name][-1], flush=True)
        if output is not None:
            output.write_text(json.dumps(everything, indent=1))
    table = Table("set", "splits", *WAYS, title="regret: median, mean and worst, in points")
    for name, rows in everything.items():
        cells = []
        for way in WAYS:
            values = np.array([row[way] for row in rows])
            cells.append(f"{np.median(values):.1f}, {values.mean():.1f}, {values.max():.1f}")
        table.add_row(name, str(len(rows)), *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
