"""One run of a recipe: check, load, train, select on validation, score the test split once, write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from attentive_probes.analysis.layer_maps import layer_heatmap
from attentive_probes.analysis.plots import attention_grid, layer_figure, require_matplotlib
from attentive_probes.data.images import ImageSplit, ImageStream
from attentive_probes.evaluation.references import Reference, evaluate_reference, linear_probe, read_features
from attentive_probes.evaluation.results import ReferenceResult, SweepResults
from attentive_probes.modeling_probe import ProbeForImageClassification
from attentive_probes.naming import unknown_name
from attentive_probes.probe_setup import describe_probe, reading_of
from attentive_probes.recipe import EvaluationRecipe, Recipe
from attentive_probes.recipe_data import (
    cache_splits,
    labels_of,
    load_split_of,
    load_train_and_validation,
    open_splits,
)
from attentive_probes.sweep import SHARED_ADAPTER, HeadRun, ProbeSweep, check_heads
from attentive_probes.training.checkpoint import PROBES, check_output_dir
from attentive_probes.training.profile import Profile, profile_run
from attentive_probes.training.trainer import ProbeTrainer

SELECTED_ON_TEST = (
    "SELECTED ON THE TEST SPLIT, by an explicit override: epoch and head were chosen on the split that is reported, so "
    "every number is optimistic."
)
ATTENTION_PICTURE = "attention.png"
LAYERS_PICTURE = "layers.png"


def run_recipe(recipe: Recipe) -> SweepResults:
    """Train and evaluate what a recipe describes; everything is written to `train.output_dir`.

    Raises:
        ValueError: If anything in the recipe does not fit; found before the backbone's weights are read, wherever the
            recipe alone can tell.
    """
    sweep, opened = prepare(recipe)
    data = recipe.data
    references = recipe.evaluation.references
    of_references = [reading_of(sweep.config, reference.head) for reference in references.values()]
    readings = list(dict.fromkeys([*sweep.readings, *of_references]))
    splits = cache_splits(data, sweep, opened, readings, recipe.train) if data.tokens == "cached" else opened
    trainer = ProbeTrainer(
        sweep, recipe.train, splits["train"], splits["validation"], images=data.images, augmentation=data.augmentation
    )
    if trainer.accelerator.is_main_process:
        trainer.folder.mkdir(parents=True, exist_ok=True)
        recipe.save(trainer.folder / "recipe.yaml")
    if data.validation_split is not None and data.validation_split == data.test_split:
        trainer.results.protocol = SELECTED_ON_TEST
    results = trainer.train()
    if splits["test"] is not None:
        results = trainer.test(splits["test"], recipe.evaluation.baseline)
    if references:
        add_references(references, trainer, splits)
    if isinstance(opened["test"], ImageSplit) and trainer.accelerator.is_main_process:
        _draw(recipe, sweep, results, opened["test"], trainer.folder)
    return results


def profile_recipe(recipe: Recipe) -> Profile:
    """Time the stages of a recipe's training on a few batches; nothing is written.

    Raises:
        ValueError: As `run_recipe`; also if the training split is a stream.
    """
    data = replace(recipe.data, images=replace(recipe.data.images, check=False), test_split=None)
    recipe = replace(recipe, data=data, train=replace(recipe.train, overwrite=True), evaluation=EvaluationRecipe())
    sweep, opened = prepare(recipe)
    trainer = ProbeTrainer(
        sweep, recipe.train, opened["train"], opened["validation"], images=data.images, augmentation=data.augmentation
    )
    return profile_run(trainer)


def prepare(recipe: Recipe) -> tuple[ProbeSweep, dict[str, ImageSplit | ImageStream | None]]:
    """The heads of a recipe on their backbone, and its splits (`train`, `validation`, `test`), all checked.

    Raises:
        ValueError: As `run_recipe`.
    """
    runs = check_recipe(recipe)
    data = recipe.data
    train, validation = load_train_and_validation(data, recipe.train.seed)
    test = load_split_of(data, data.test_split) if data.test_split else None
    sweep = ProbeSweep.from_backbone(
        recipe.backbone.name,
        runs,
        dtype=getattr(torch, recipe.backbone.dtype),
        attn_implementation=recipe.backbone.attn_implementation,
        device_map=recipe.backbone.device_map,
        random_weights=recipe.backbone.random_weights,
        lora=recipe.lora and recipe.lora.config(),
        labels=labels_of(data, train),
        num_labels=data.num_labels,
        problem_type=data.problem_type,
        **_backbone_options(recipe),
    )
    if recipe.lora is not None and recipe.lora.start_from is not None:
        start_from(sweep, recipe.lora.start_from)
    return sweep, open_splits(data, sweep, {"train": train, "validation": validation, "test": test})


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
            loader = trainer.accelerator.prepare(trainer.loader(split, train=False)[0])
            features[name] = read_features(trainer.sweep, loader, list(readings.values()), trainer.accelerator)
    for name, reference in references.items():
        mine = {split: by_reading[readings[name]] for split, by_reading in features.items()}
        found = evaluate_reference(reference, mine["train"], mine["validation"], mine.get("test"), config.num_labels)
        test = None
        if found.test is not None and trainer.baseline_scores is not None:
            test = found.test.test_metrics(trainer.baseline_scores, config)
        result = ReferenceResult(name, asdict(reference), found.settings, found.validation, test)
        trainer.results.references.append(result)
        if found.model is not None and trainer.accelerator.is_main_process:
            probe = linear_probe(trainer.sweep, reference.head, found.model)
            probe.save_pretrained(trainer.folder / PROBES / name)
    trainer.save_results()


def _draw(recipe: Recipe, sweep: ProbeSweep, results: SweepResults, test: ImageSplit, folder: Path) -> None:
    evaluation = recipe.evaluation
    if evaluation.attention_head is not None:
        images = [test[row].image for row in range(min(evaluation.num_images, len(test)))]
        attention_grid(sweep.probe(evaluation.attention_head), images, folder / ATTENTION_PICTURE)
    if evaluation.layers_head is not None:
        layers = layer_heatmap(sweep.probe(evaluation.layers_head), (test[row].image for row in range(len(test))))
        layer_figure(results, layers, folder / LAYERS_PICTURE)


def check_recipe(recipe: Recipe) -> dict[str, HeadRun]:
    """Check a recipe as far as it can be without data and weights, and return its heads.

    Raises:
        ValueError: If the output folder holds a run, a head does not fit the backbone, or a name is unknown.
    """
    check_output_dir(Path(recipe.train.output_dir), recipe.train.overwrite, recipe.train.resume)
    runs = recipe.head_runs()
    if not runs:
        raise ValueError("The recipe has no heads.")
    for key in ("baseline", "attention_head", "layers_head"):
        name = getattr(recipe.evaluation, key)
        if name is not None and name not in runs:
            raise ValueError(unknown_name(f"head in evaluation.{key}:", name, runs))
    if taken := sorted(runs.keys() & recipe.evaluation.references.keys()):
        raise ValueError(f"{taken} are names of heads and of references; rename one of each.")
    if not isinstance(getattr(torch, recipe.backbone.dtype, None), torch.dtype):
        raise ValueError(unknown_name("backbone.dtype", recipe.backbone.dtype, ("float32", "bfloat16", "float16")))
    config, _ = describe_probe(
        recipe.backbone.name, num_labels=1, problem_type="regression", **_backbone_options(recipe)
    )
    check_heads(config, {**runs, **{name: HeadRun(r.head) for name, r in recipe.evaluation.references.items()}})
    _check_lora(recipe, runs)
    _check_pictures(recipe, runs)
    return runs


def _check_lora(recipe: Recipe, runs: dict[str, HeadRun]) -> None:
    if recipe.lora is None:
        return
    recipe.lora.config()
    if len(runs) > 1:
        raise ValueError(SHARED_ADAPTER.format(sorted(runs)))
    if recipe.data.tokens == "cached":
        raise ValueError("An adapter changes the tokens with every step; train it with data.tokens=online.")
    if recipe.evaluation.references:
        raise ValueError("evaluation.references describe a frozen backbone; leave them out of a run with lora.")


def _check_pictures(recipe: Recipe, runs: dict[str, HeadRun]) -> None:
    evaluation = recipe.evaluation
    for key in ("attention_head", "layers_head"):
        name = getattr(evaluation, key)
        if name is None:
            continue
        require_matplotlib()
        if recipe.data.streaming or recipe.data.test_split is None or evaluation.num_images < 1:
            raise ValueError(
                f"evaluation.{key}={name!r} is drawn over test images: it needs a test_split that is no stream, and "
                "num_images of at least one."
            )
        if key == "attention_head" and "patches" not in [item.kind for item in runs[name].head.reading.items]:
            raise ValueError(f"evaluation.{key}={name!r} reads no patches, so its attention cannot be drawn.")
    if evaluation.references and (recipe.data.streaming or recipe.data.problem_type != "single_label_classification"):
        raise ValueError("evaluation.references needs single labels and no stream.")
    if evaluation.references and recipe.data.tokens == "cached" and recipe.data.augmentation is not None:
        raise ValueError(
            "evaluation.references reads plain images, the cache augmented ones; set data.augmentation=null."
        )
    if evaluation.layers_head is not None and recipe.data.problem_type != "single_label_classification":
        raise ValueError("evaluation.layers_head draws accuracies; it needs single labels.")


def _backbone_options(recipe: Recipe) -> dict[str, Any]:
    size = recipe.backbone.image_size
    if size is not None and len(size) != 2:
        raise ValueError(f"backbone.image_size is {size}; write [height, width].")
    return {
        "revision": recipe.backbone.revision,
        "image_size": (size[0], size[1]) if size else None,
        "trust_remote_code": recipe.backbone.trust_remote_code,
    }


def start_from(sweep: ProbeSweep, probe: str) -> None:
    """Give the only head of a sweep the weights of a trained probe (folder or Hub id) on the same backbone.

    Raises:
        ValueError: If that probe has another head, other classes or another backbone.
    """
    (name, run) = next(iter(sweep.runs.items()))
    found = ProbeForImageClassification.from_pretrained(probe, backbone=sweep.backbone)
    pairs = {
        "adapter": (found.config.lora, False),
        "head": (found.config.head, run.head.to_dict()),
        "classes": (found.config.id2label, sweep.config.id2label),
        "backbone": (found.config.backbone_fingerprint, sweep.config.backbone_fingerprint),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ValueError(
                f"The probe {probe!r} cannot be the start: its {what} is {theirs}, that of the run is {ours}."
            )
    sweep.heads[name].load_state_dict(found.head.state_dict())
