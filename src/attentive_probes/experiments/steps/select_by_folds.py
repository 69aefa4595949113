"""How a run chooses: by cross-validation before it trains the winner, or on its validation split afterwards."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attentive_probes.data.splitting.folds import folds_of
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.references import Reference
from attentive_probes.evaluation.runs.candidates import Candidate, Choice, choose, strata_of
from attentive_probes.evaluation.runs.families import BEST
from attentive_probes.evaluation.runs.run_files import FOLDS
from attentive_probes.experiments.evaluation_block import SelectionRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.cross_validation import candidates_on, cross_validate
from attentive_probes.training.fit import fresh
from attentive_probes.training.trainer import ProbeTrainer

WEIGHED = ("top1", "balanced_accuracy")  # metrics that are means over images


logger = logging.getLogger(__name__)


@dataclass
class Selected:
    """What a cross-validation leaves to be trained.

    Args:
        sweep: The heads that are still needed: the winner, the baseline, and what is drawn.
        references: The references, each with its best setting.
        found: What `SweepResults.selection` tells of it.
    """

    sweep: ProbeSweep
    references: dict[str, Reference]
    found: dict[str, Any]


def check_selection(recipe: Recipe) -> None:
    """Check that a recipe's choice can be made.

    Raises:
        ValueError: If it needs other tokens, another problem or another metric.
    """
    selection = recipe.selection
    if selection is None:
        return
    data = recipe.data
    metric = recipe.train.selection_metric or data.problem.selection
    if not data.problem.has_one_class:
        raise ValueError(f"selection compares predictions; {data.problem_type} has none. Leave it out.")
    if metric not in WEIGHED:
        raise ValueError(f"selection compares images, by {' or '.join(WEIGHED)}, not by {metric!r}.")
    if data.tokens != "cached" or (selection.folds and data.augmentation is not None):
        raise ValueError(
            "selection reads every image many times; set data.tokens=cached"
            + (" and data.augmentation=null." if selection.folds else ".")
        )
    if selection.folds and data.allow_selection_on_test:
        raise ValueError("selection.folds has no use for allow_selection_on_test; leave it out.")


def select_by_folds(
    recipe: Recipe,
    sweep: ProbeSweep,
    pool: TokenCache,
    groups: np.ndarray | None = None,
    folds: np.ndarray | None = None,
) -> Selected:
    """Cross-validate all heads and references over training and validation images, and keep what is still needed.

    Args:
        recipe: The run.
        sweep: All heads.
        pool: Tokens of the training and the validation images.
        groups: Group `(M,)` of each training, then validation image, also of those that cannot be read.
        folds: Fold `(M,)` of each, where the data say so; else they are drawn.

    Raises:
        ValueError: If there are too few images or groups, or every head diverges.
    """
    selection, references = recipe.selection, recipe.evaluation.references
    assert selection is not None
    classes, places = pool.labels.numpy(), pool.images.numpy()
    groups = None if groups is None else groups[places]
    if folds is None:
        folds = folds_of(classes, _num_folds(selection.folds, groups), recipe.data.split_seed, groups)
    else:
        folds = np.unique(folds[places], return_inverse=True)[1]
    num_folds = len(np.unique(folds))
    accelerator = make_accelerator()
    folder = Path(recipe.train.output_dir) / FOLDS
    candidates = cross_validate(sweep, references, recipe.train, pool, folds, accelerator, folder)
    if not any(candidate.heads for candidate in candidates):
        raise ValueError(f"All heads diverged: {sorted(sweep.runs)}. Lower the learning rates.")
    choice = _choose(selection, candidates, recipe.train.selection_metric, classes, groups)
    standing = {one.name: one for one in candidates}
    best_of: dict[str, Candidate] = {}
    for place in choice.standings:
        best_of.setdefault(place.family, standing[place.name])
    winner = standing[choice.winner]
    if winner.heads:
        best_of[winner.family] = winner
    keep = _needed(recipe, winner, list(best_of.values()))
    kept = {name: run for name, run in sweep.runs.items() if name in keep}
    settled = {
        name: reference.with_setting(best_of[name].settings) if name in best_of else reference
        for name, reference in references.items()
    }
    count = f"{num_folds}-fold cross-validation of {len(classes)} images"
    found = describe(choice, winner, count + _in_groups(groups))
    return Selected(fresh(sweep, kept), settled, found)


def _num_folds(wanted: int, groups: np.ndarray | None) -> int:
    """As many folds as were asked for, or as there are groups, if these are fewer."""
    count = wanted if groups is None else len(np.unique(groups))
    if 1 < count < wanted:
        logger.warning("selection.folds is %d, of %d groups: there are %d folds.", wanted, count, count)
        return count
    return wanted


def select_on_validation(
    recipe: Recipe, trainer: ProbeTrainer, splits: Mapping[str, TokenCache | None], groups: np.ndarray | None
) -> dict[str, Any]:
    """Choose among the heads of a run, at the end of their schedule, and its references, on the validation split."""
    train, validation = splits["train"], splits["validation"]
    assert recipe.selection is not None and train is not None and validation is not None
    candidates = candidates_on(trainer.sweep, recipe.evaluation.references, train, validation, trainer.accelerator)
    choice = _choose(recipe.selection, candidates, recipe.train.selection_metric, validation.labels.numpy(), groups)
    winner = next(one for one in candidates if one.name == choice.winner)
    count = f"the validation split of {len(validation)} images"
    return describe(choice, winner, count + _in_groups(groups))


def _in_groups(groups: np.ndarray | None) -> str:
    return "" if groups is None else f" in {len(np.unique(groups))} groups"


def describe(choice: Choice, winner: Candidate, where: str) -> dict[str, Any]:
    """What `SweepResults.selection` tells of a choice."""
    return {
        "winner": winner.name if winner.heads else winner.family,
        "method": f"Selected on {where}, by the mean over images and seeds, heads at the end of their schedule.",
        "sentence": choice.sentence,
        "standings": [{**asdict(one), "is_told_apart": one.is_told_apart} for one in choice.standings],
    }


def _choose(
    selection: SelectionRecipe,
    candidates: Sequence[Candidate],
    metric: str | None,
    classes: np.ndarray,
    groups: np.ndarray | None,
) -> Choice:
    return choose(
        candidates, strata=strata_of(metric, classes), groups=groups, one_standard_error=selection.one_standard_error
    )


def _needed(recipe: Recipe, winner: Candidate, best: Sequence[Candidate]) -> Collection[str]:
    """Names of the heads that are trained in the end: the winner, or the best head; the baseline; what is drawn."""
    evaluation = recipe.evaluation
    heads = [one for one in best if one.heads]
    shown = winner if winner.heads else heads[0]
    named = [evaluation.baseline, evaluation.attention_head, evaluation.layers_head]
    asked = {name for name in named if name not in (None, BEST)}
    return {
        name for one in heads if one is shown or one.family in asked or asked & set(one.heads) for name in one.heads
    }
