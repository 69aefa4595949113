"""One run of a recipe: check, load, train, select on validation, score the test split once, write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from attentive_probes.analysis.figures.plots import has_matplotlib
from attentive_probes.analysis.report import write_report
from attentive_probes.auditing.audit_splits import MOST_IMAGES, audit_reading, audit_splits, held_splits
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.evaluation.results import READING, SweepResults
from attentive_probes.evaluation.runs.run_files import ATTENTION_PICTURE, PROBES, RECIPE, SPLITS
from attentive_probes.experiments.judging import EvaluationRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.add_references import add_references
from attentive_probes.experiments.steps.cache_tokens import (
    cache_splits,
    describe_dataset,
)
from attentive_probes.experiments.steps.more_tests import open_tests, run_tests
from attentive_probes.experiments.steps.pictures import draw_audit, draw_pictures, named_head
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.experiments.steps.select_by_folds import Selected, select_by_folds, select_on_validation
from attentive_probes.experiments.steps.split_files import write_splits
from attentive_probes.experiments.steps.test_options import details_of
from attentive_probes.files.disk_space import check_space
from attentive_probes.probe.making.describe import reading_of
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.calibration import calibrate
from attentive_probes.training.profile import Profile, profile_run
from attentive_probes.training.refit import refit
from attentive_probes.training.state.checkpoint import bytes_of_run, claimed, replace_whole, save_best
from attentive_probes.training.state.notes import note_groups, warn
from attentive_probes.training.trainer import ProbeTrainer

SELECTED_ON_TEST = (
    "SELECTED ON THE TEST SPLIT, by an explicit override: epoch and head were chosen on the split that is reported, so "
    "every number is optimistic."
)


PROTOCOL_OF_SELECTION = (
    "Head and settings are selected {}; heads are judged and kept at the end of their schedule, which no image of them "
    f"chose; the test split is scored once, after training. {READING}"
)
ADVICE = {
    True: "More groups would say more.",
    False: "selection.folds=5 judges heads by all groups of training and validation; more groups would say more.",
}
BY = {True: "by cross-validation over training and validation images", False: "on the validation split"}


def run_recipe(recipe: Recipe) -> SweepResults:
    """Train and evaluate what a recipe describes; everything is written to `train.output_dir`.

    Raises:
        ValueError: If anything in the recipe does not fit; found before the backbone's weights are read, wherever the
            recipe alone can tell.
    """
    sweep, raw, opened = prepare(recipe)
    with claimed(Path(recipe.train.output_dir)):  # before hours of caching
        return _run(recipe, sweep, raw, opened)


def _run(
    recipe: Recipe, sweep: ProbeSweep, raw: RawSplits, opened: Mapping[str, ImageSplit | ImageStream | None]
) -> SweepResults:
    data, references = recipe.data, recipe.evaluation.references
    of_references = [reading_of(sweep.config, reference.head) for reference in references.values()]
    readings = list(dict.fromkeys([*sweep.readings, *of_references]))
    tests = open_tests(data, sweep, raw.table, opened["train"])
    details = details_of(recipe.evaluation, raw.parts.get("test"), raw.table, data.problem)
    needs = {Path(recipe.train.output_dir): bytes_of_run(sweep)}
    check_space(needs)
    by_folds = recipe.selection is not None and recipe.selection.folds > 0
    splits: Mapping[str, Any] = opened
    if data.tokens == "cached":
        splits = cache_splits(data, sweep, opened, readings, recipe.train, needs, by_folds)
    selected = None
    if by_folds:
        selected = select_by_folds(recipe, sweep, splits["pool"], raw.pool_groups(opened))
        sweep, references = selected.sweep, selected.references
    trainer = _trainer(recipe, sweep, splits, raw, by_folds)
    results = trainer.train()
    note_groups(results, raw.num_groups(), ADVICE[by_folds])
    _choose(recipe, trainer, splits, selected, raw)
    if splits["test"] is not None and not trainer.is_tested:
        results = trainer.test(splits["test"], recipe.evaluation.baseline, details)
    if trainer.is_tested:
        run_tests(trainer, tests, results.baseline or results.best.name)
    known = {reference.name for reference in results.references}
    if missing := {name: reference for name, reference in references.items() if name not in known}:
        add_references(missing, trainer, splits, details)
    if recipe.evaluation.report:
        _audit(recipe, trainer, opened, splits, raw)
    trainer.save_results()
    if trainer.accelerator.is_main_process:
        if recipe.evaluation.report:
            _draw(recipe, trainer, opened["test"])
        save_best(trainer.folder, results.winner)  # whole, with its picture
        if recipe.evaluation.report:
            write_report(trainer.folder)
    return results


def _trainer(
    recipe: Recipe, sweep: ProbeSweep, splits: Mapping[str, Any], raw: RawSplits, by_folds: bool
) -> ProbeTrainer:
    """The trainer of a run, with what is known before it begins written down."""
    data, arguments = recipe.data, recipe.train
    chooses = recipe.selection is not None
    if chooses:  # no epoch is chosen by the images that judge; references have none either
        arguments = replace(arguments, select_epoch=False)
    options: dict[str, Any] = {"images": data.images, "augmentation": data.augmentation}
    options["groups"] = raw.parts["validation"].by_row()
    trainer = ProbeTrainer(sweep, arguments, splits["train"], splits["validation"], **options)
    if trainer.accelerator.is_main_process:
        recipe.save(trainer.folder / RECIPE)
        (trainer.folder / SPLITS).unlink(missing_ok=True)
        if raw.rows:
            write_splits(raw, data, trainer.folder / SPLITS)
        trainer.attach(RECIPE, (trainer.folder / RECIPE).read_text("utf-8"))
    trainer.results.dataset, trainer.chooses_later = describe_dataset(data), chooses
    for name, content in raw.contents(data.images.label_column).items():
        trainer.results.data.setdefault(name, {})["content"] = content
    if chooses:
        trainer.results.protocol = PROTOCOL_OF_SELECTION.format(BY[by_folds])
    if data.validation_split is not None and data.validation_split == data.test_split:
        trainer.results.protocol = SELECTED_ON_TEST
    return trainer


def _choose(
    recipe: Recipe, trainer: ProbeTrainer, splits: Mapping[str, Any], selected: Selected | None, raw: RawSplits
) -> None:
    """Choose among the heads of a run that is trained, and refit them if asked for; a resumed one has its choice."""
    results = trainer.results
    if recipe.selection is None:
        return
    if selected is not None:
        results.selection = {**selected.found, "refit": results.selection.get("refit", 0)}
    elif not results.selection:
        groups = raw.parts["validation"].groups_at(splits["validation"].images.numpy())
        results.selection = select_on_validation(recipe, trainer, splits, groups)
    # The winner, on images that it did not learn from.
    calibrate(trainer.run)
    if trainer.accelerator.is_main_process:  # it was saved before it was one
        replace_whole(trainer.probe(), trainer.folder / PROBES / results.best.name)
    if selected is not None and recipe.selection.refit:
        results.selection["refit"] = refit(trainer, splits["pool"])
    trainer.save_results()


def _audit(
    recipe: Recipe, trainer: ProbeTrainer, opened: Mapping[str, Any], caches: Mapping[str, Any], raw: RawSplits
) -> None:
    """Look for copies, wrong labels and the like, where that costs seconds: cached tokens of not too many images."""
    found = held_splits(opened, caches)
    if recipe.data.tokens != "cached" or not recipe.data.problem.has_one_class:
        return
    if sum(len(cache) for cache in found.caches.values()) > MOST_IMAGES or recipe.data.augmentation is not None:
        return
    reading = audit_reading(trainer.sweep, found.caches)
    if reading is not None:
        audit = audit_splits(trainer.sweep, found.splits, found.caches, reading, trainer.accelerator, raw)
        if trainer.accelerator.is_main_process:
            audit.save(trainer.folder)
            warn(trainer.results, *audit.warnings)
            if has_matplotlib():
                draw_audit(audit, found.splits, trainer.folder)


def _draw(recipe: Recipe, trainer: ProbeTrainer, test: ImageSplit | ImageStream | None) -> None:
    """The pictures of a run whose numbers are written."""
    if isinstance(test, ImageSplit) and has_matplotlib():
        draw_pictures(recipe.evaluation, trainer.sweep, trainer.results, test, trainer.folder)
        picture = trainer.folder / ATTENTION_PICTURE
        if picture.exists():
            shown = named_head(recipe.evaluation.attention_head, trainer.results)
            trainer.attach(ATTENTION_PICTURE, picture.read_bytes(), shown)
            trainer.save_results()


def profile_recipe(recipe: Recipe) -> Profile:
    """Time the stages of a recipe's training on a few batches; nothing is written.

    Raises:
        ValueError: As `run_recipe`; also if the training split is a stream.
    """
    data = replace(recipe.data, images=replace(recipe.data.images, check=False), test_split=None, test_fraction=None)
    recipe = replace(recipe, data=data, train=replace(recipe.train, overwrite=True), evaluation=EvaluationRecipe())
    sweep, _, opened = prepare(recipe)
    trainer = ProbeTrainer(
        sweep, recipe.train, opened["train"], opened["validation"], images=data.images, augmentation=data.augmentation
    )
    return profile_run(trainer)
