"""One run of a recipe: check, load, train, select on validation, score the test split once, write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from attentive_probes.analysis.plots import has_matplotlib
from attentive_probes.analysis.report import write_report
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.disk import check_space
from attentive_probes.evaluation.class_scores import ClassScores
from attentive_probes.evaluation.references import Reference, evaluate_reference, linear_probe, read_features
from attentive_probes.evaluation.results import ReferenceResult, SweepResults
from attentive_probes.evaluation.run_files import ATTENTION_PICTURE, PROBES, RECIPE, SPLITS
from attentive_probes.experiments.blocks import EvaluationRecipe
from attentive_probes.experiments.checks import backbone_options, check_recipe
from attentive_probes.experiments.data import (
    cache_splits,
    describe_dataset,
    open_splits,
)
from attentive_probes.experiments.pictures import draw_pictures, named_head
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.splits import RawSplits, load_splits, write_splits
from attentive_probes.probe.files import add_adapter, read_config
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.setup import reading_of
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.checkpoint import bytes_of_run, claimed, save_whole
from attentive_probes.training.profile import Profile, profile_run
from attentive_probes.training.splits import check_batches, fit_batch_size
from attentive_probes.training.trainer import ProbeTrainer

SELECTED_ON_TEST = (
    "SELECTED ON THE TEST SPLIT, by an explicit override: epoch and head were chosen on the split that is reported, so "
    "every number is optimistic."
)


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
    data = recipe.data
    references = recipe.evaluation.references
    of_references = [reading_of(sweep.config, reference.head) for reference in references.values()]
    readings = list(dict.fromkeys([*sweep.readings, *of_references]))
    folder = Path(recipe.train.output_dir)
    needs = {folder: bytes_of_run(sweep)}
    check_space(needs)
    splits = cache_splits(data, sweep, opened, readings, recipe.train, needs) if data.tokens == "cached" else opened
    trainer = ProbeTrainer(
        sweep, recipe.train, splits["train"], splits["validation"], images=data.images, augmentation=data.augmentation
    )
    if trainer.accelerator.is_main_process:
        recipe.save(trainer.folder / RECIPE)
        (trainer.folder / SPLITS).unlink(missing_ok=True)
        if raw.rows:
            write_splits(raw, data, trainer.folder / SPLITS)
        trainer.attach(RECIPE, (trainer.folder / RECIPE).read_text())
    trainer.results.dataset = describe_dataset(data)
    if data.validation_split is not None and data.validation_split == data.test_split:
        trainer.results.protocol = SELECTED_ON_TEST
    results = trainer.train()
    if splits["test"] is not None and not trainer.is_tested:
        results = trainer.test(splits["test"], recipe.evaluation.baseline)
    known = {reference.name for reference in results.references}
    if missing := {name: reference for name, reference in references.items() if name not in known}:
        add_references(missing, trainer, splits)
    if trainer.accelerator.is_main_process:
        _show(recipe, trainer, opened["test"])
    return results


def _show(recipe: Recipe, trainer: ProbeTrainer, test: ImageSplit | ImageStream | None) -> None:
    """Pictures and the report of a run whose numbers are written."""
    if isinstance(test, ImageSplit) and has_matplotlib():
        draw_pictures(recipe.evaluation, trainer.sweep, trainer.results, test, trainer.folder)
        picture = trainer.folder / ATTENTION_PICTURE
        if picture.exists():
            shown = named_head(recipe.evaluation.attention_head, trainer.results)
            trainer.attach(ATTENTION_PICTURE, picture.read_bytes(), shown)
            trainer.save_results()
    write_report(trainer.folder)


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


def prepare(recipe: Recipe) -> tuple[ProbeSweep, RawSplits, dict[str, ImageSplit | ImageStream | None]]:
    """The heads of a recipe on their backbone, and its splits as they were read and opened, all checked.

    Raises:
        ValueError: As `run_recipe`.
    """
    runs = check_recipe(recipe)
    data = recipe.data
    splits = load_splits(data)
    sweep = ProbeSweep.from_backbone(
        recipe.backbone.name,
        runs,
        dtype=getattr(torch, recipe.backbone.dtype),
        attn_implementation=recipe.backbone.attn_implementation,
        device_map=recipe.backbone.device_map,
        quantization_config=recipe.backbone.quantization,
        random_weights=recipe.backbone.random_weights,
        labels=splits.table,
        problem_type=data.problem_type,
        **backbone_options(recipe),
    )
    if recipe.lora is not None:
        if recipe.lora.start_from is not None:
            start_from(sweep, recipe.lora.start_from)
        add_adapter(sweep.config, sweep.backbone, recipe.lora.config(), recipe.train.seed)
    opened = open_splits(data, sweep, splits, recipe.train.seed)
    _check_sizes(recipe, sweep, opened)
    return sweep, splits, opened


def _check_sizes(recipe: Recipe, sweep: ProbeSweep, opened: Mapping[str, ImageSplit | ImageStream | None]) -> None:
    train, test = opened["train"], opened["test"]
    assert train is not None
    check_batches(train, sweep, fit_batch_size(recipe.train, train))
    if isinstance(test, ImageSplit) and len(test) < 2:
        raise ValueError(
            "The test split holds one image, which says nothing of a head; name another data.test_split, or a larger "
            "data.test_fraction."
        )


def add_references(references: Mapping[str, Reference], trainer: ProbeTrainer, splits: Mapping[str, Any]) -> None:
    """Evaluate k-NN and logistic regression on the features of a run's splits and add them to its results.

    Logistic regression leaves a probe in `probes/<name>`, as the heads do.

    Raises:
        ValueError: If a setting is out of range.
    """
    config = trainer.sweep.config
    readings = {name: reading_of(config, reference.head) for name, reference in references.items()}
    features = {}
    for name, split in splits.items():
        if split is not None:
            loader = trainer.loader(split, train=False)
            features[name] = read_features(trainer.sweep, loader, list(readings.values()), trainer.accelerator)
    for name, reference in references.items():
        mine = {split: by_reading[readings[name]] for split, by_reading in features.items()}
        found = evaluate_reference(reference, mine["train"], mine["validation"], mine.get("test"), config.num_labels)
        test = None
        if found.test is not None and isinstance(trainer.baseline_scores, ClassScores):
            test = found.test.test_metrics(trainer.baseline_scores)
        result = ReferenceResult(name, asdict(reference), found.settings, found.validation, test)
        trainer.results.references.append(result)
        if found.model is not None and trainer.accelerator.is_main_process:
            probe = linear_probe(trainer.sweep, reference.head, found.model)
            save_whole(probe, trainer.folder / PROBES / name)
    trainer.results.correct_for_number()
    trainer.save_results()


def start_from(sweep: ProbeSweep, probe: str) -> None:
    """Give the only head of a sweep the weights of a trained probe (folder or Hub id) on the same backbone.

    Raises:
        ValueError: If that probe has another head, other classes or another backbone.
    """
    (name, run) = next(iter(sweep.runs.items()))
    stored = read_config(probe, {}, trust_remote_code=False)  # whose it is, nobody has looked at
    pairs = {
        "adapter": (bool(stored.lora), False),
        "head": (stored.head, run.head.to_dict()),
        "classes": (stored.id2label, sweep.config.id2label),
        "backbone": (stored.backbone_fingerprint, sweep.config.backbone_fingerprint),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ValueError(
                f"The probe {probe!r} cannot be the start: its {what} is {theirs}, that of the run is {ours}."
            )
    found = ProbeForImageClassification.from_pretrained(probe, backbone=sweep.backbone)
    sweep.heads[name].load_state_dict(found.head.state_dict())
    sweep.heads[name].is_trained = True
