"""One run of a recipe: check, load, train, select on validation, score the test split once, write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attentive_probes.analysis.figures.drawing import has_matplotlib
from attentive_probes.analysis.report import write_report
from attentive_probes.auditing.audit_splits import MAX_IMAGES, audit_reading, audit_splits, held_splits
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.evaluation.references import Reference
from attentive_probes.evaluation.results import READING, SweepResults
from attentive_probes.evaluation.runs.run_files import ATTENTION_PICTURE, RECIPE, SPLITS, probe_folder
from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.experiments.evaluation_block import EvaluationRecipe, SelectionRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.add_references import add_references
from attentive_probes.experiments.steps.cache_tokens import (
    cache_splits,
    describe_dataset,
)
from attentive_probes.experiments.steps.more_tests import MoreTest, open_tests, run_tests
from attentive_probes.experiments.steps.pictures import draw_audit, draw_pictures, named_head
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.experiments.steps.read_subgroups import details_of
from attentive_probes.experiments.steps.select_by_folds import Selected, select_by_folds, select_on_validation
from attentive_probes.experiments.steps.split_files import write_splits
from attentive_probes.experiments.steps.taken_for import taken_for
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


@dataclass
class _Work:
    """A recipe on its way: each step of `_run` takes what the steps before it left here.

    Args:
        recipe: What is to be done.
        sweep: The heads and their backbone; after a selection by folds those that are still needed.
        raw: The splits as they were read.
        opened: Name -> images of each split.
        tests: Further test splits.
        details: What else is wanted of the test split.
        splits: Name -> what heads read of each split: its images, or their cached tokens.
        references: Name -> classifier on fixed features, also only those that are still needed.
        selected: What a selection by folds found; `None` without folds.
    """

    recipe: Recipe
    sweep: ProbeSweep
    raw: RawSplits
    opened: Mapping[str, ImageSplit | ImageStream | None]
    tests: Mapping[str, MoreTest]
    details: DetailOptions
    splits: Mapping[str, Any]
    references: Mapping[str, Reference]
    selected: Selected | None = None

    @property
    def by_folds(self) -> bool:
        """Whether heads are chosen by cross-validation."""
        return self.recipe.selection is not None and self.recipe.selection.folds > 0


def _run(
    recipe: Recipe, sweep: ProbeSweep, raw: RawSplits, opened: Mapping[str, ImageSplit | ImageStream | None]
) -> SweepResults:
    tests = open_tests(recipe.data, sweep, raw.table, opened["train"])
    details = details_of(recipe.evaluation, raw.parts.get("test"), raw.table, recipe.data.problem)
    work = _Work(recipe, sweep, raw, opened, tests, details, opened, recipe.evaluation.references)
    _cache(work)
    _select(work)
    trainer = _train(work)
    _test(work, trainer)
    _report(work, trainer)
    return trainer.results


def _cache(work: _Work) -> None:
    """Put tokens in the place of images, if the recipe says so; the disk must hold them and what the run writes."""
    recipe, sweep = work.recipe, work.sweep
    needs = {Path(recipe.train.output_dir): bytes_of_run(sweep)}
    check_space(needs)
    if recipe.data.tokens == "cached":
        of_references = [reading_of(sweep.config, reference.head) for reference in work.references.values()]
        readings = list(dict.fromkeys([*sweep.readings, *of_references]))
        work.splits = cache_splits(recipe.data, sweep, work.opened, readings, recipe.train, needs, work.by_folds)


def _select(work: _Work) -> None:
    """Cross-validate all heads and references, and go on with those that are still needed."""
    if work.by_folds:
        groups = work.raw.pool_groups(work.opened)
        folds = work.raw.pool_folds(work.opened)
        work.selected = select_by_folds(work.recipe, work.sweep, work.splits["pool"], groups, folds)
        work.sweep, work.references = work.selected.sweep, work.selected.references


def _train(work: _Work) -> ProbeTrainer:
    """Train, and choose the winner."""
    trainer = _trainer(work)
    trainer.train()
    note_groups(trainer.results, work.raw.num_groups(), ADVICE[work.by_folds])
    if work.recipe.selection is not None:
        _choose(work, work.recipe.selection, trainer)
    return trainer


def _test(work: _Work, trainer: ProbeTrainer) -> None:
    """Score the test splits, each of them once, with heads and references."""
    split, baseline = work.splits["test"], work.recipe.evaluation.baseline
    if split is not None and not trainer.is_tested:
        trainer.test(split, baseline, work.details)
    results = trainer.results
    if trainer.is_tested:
        run_tests(trainer, work.tests, results.baseline or results.best.name)
    known = {reference.name for reference in results.references}
    if missing := {name: reference for name, reference in work.references.items() if name not in known}:
        add_references(missing, trainer, work.splits, work.details)


def _report(work: _Work, trainer: ProbeTrainer) -> None:
    """Audit the images, write the results, and draw and report them, if the recipe says so."""
    is_wanted = work.recipe.evaluation.report
    if is_wanted:
        _audit(work, trainer)
    trainer.save_results()
    if trainer.accelerator.is_main_process:
        if is_wanted:
            _draw(work, trainer)
        # After its picture is drawn, so that the copy is whole.
        save_best(trainer.folder, trainer.results.winner)
        if is_wanted:
            write_report(trainer.folder)


def _trainer(work: _Work) -> ProbeTrainer:
    """The trainer of a run, with what is known before it begins written down."""
    recipe, data, raw, splits = work.recipe, work.recipe.data, work.raw, work.splits
    # Where a winner is chosen among all candidates, no epoch is chosen by the images that judge: references have none.
    chooses = recipe.selection is not None
    arguments = replace(recipe.train, select_epoch=False) if chooses else recipe.train
    options: dict[str, Any] = {"images": data.images, "augmentation": data.augmentation}
    options["groups"] = raw.parts["validation"].by_row()
    trainer = ProbeTrainer(work.sweep, arguments, splits["train"], splits["validation"], **options)
    if trainer.accelerator.is_main_process:
        recipe.save(trainer.folder / RECIPE)
        (trainer.folder / SPLITS).unlink(missing_ok=True)
        if raw.rows or data.split_column is not None:
            write_splits(raw, data, trainer.folder / SPLITS)
        trainer.attach(RECIPE, (trainer.folder / RECIPE).read_text("utf-8"))
    trainer.results.dataset, trainer.chooses_later = describe_dataset(data), chooses
    trainer.results.dataset["taken_for"] = taken_for(raw, data)
    warn(trainer.results, *raw.warnings)
    for name, content in raw.contents(data.images.label_column).items():
        trainer.results.data.setdefault(name, {})["content"] = content
    if chooses:
        trainer.results.protocol = PROTOCOL_OF_SELECTION.format(BY[work.by_folds])
    if data.validation_split is not None and data.validation_split == data.test_split:
        trainer.results.protocol = SELECTED_ON_TEST
    return trainer


def _choose(work: _Work, selection: SelectionRecipe, trainer: ProbeTrainer) -> None:
    """Choose among the heads of a run that is trained, and refit them if asked for; a resumed one has its choice."""
    results, selected = trainer.results, work.selected
    if selected is not None:
        results.selection = {**selected.found, "refit": results.selection.get("refit", 0)}
    elif not results.selection:
        groups = work.raw.parts["validation"].groups_at(work.splits["validation"].images.numpy())
        results.selection = select_on_validation(work.recipe, trainer, work.splits, groups)
    # The winner, on images that it did not learn from.
    calibrate(trainer.run)
    # It was saved before it was the winner.
    if trainer.accelerator.is_main_process:
        replace_whole(trainer.probe(), probe_folder(trainer.folder, results.best.name))
    if selected is not None and selection.refit:
        results.selection["refit"] = refit(trainer, work.splits["pool"])
    trainer.save_results()


def _audit(work: _Work, trainer: ProbeTrainer) -> None:
    """Look for copies, wrong labels and the like, where that costs seconds: cached tokens of not too many images."""
    data = work.recipe.data
    if data.tokens != "cached" or not data.problem.has_one_class or data.augmentation is not None:
        return
    found = held_splits(work.opened, work.splits)
    if sum(len(cache) for cache in found.caches.values()) > MAX_IMAGES:
        return
    reading = audit_reading(trainer.sweep, found.caches)
    if reading is not None:
        audit = audit_splits(trainer.sweep, found.splits, found.caches, reading, trainer.accelerator, work.raw)
        if trainer.accelerator.is_main_process:
            audit.save(trainer.folder)
            warn(trainer.results, *audit.warnings)
            if has_matplotlib():
                draw_audit(audit, found.splits, trainer.folder)


def _draw(work: _Work, trainer: ProbeTrainer) -> None:
    """The pictures of a run whose numbers are written."""
    test, evaluation = work.opened["test"], work.recipe.evaluation
    if isinstance(test, ImageSplit) and has_matplotlib():
        draw_pictures(evaluation, trainer.sweep, trainer.results, test, trainer.folder)
        picture = trainer.folder / ATTENTION_PICTURE
        if picture.exists():
            shown = named_head(evaluation.attention_head, trainer.results)
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
