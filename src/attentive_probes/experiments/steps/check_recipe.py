"""What a recipe can be found wrong about before data and weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from attentive_probes.analysis.figures.drawing import require_matplotlib
from attentive_probes.backbones.quantization import quantization_of
from attentive_probes.checks import check_parts, unknown_name
from attentive_probes.evaluation.runs.families import BEST, check_name
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.select_by_folds import check_selection
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head_run import HeadRun, check_heads
from attentive_probes.probe.making.describe import describe_backbone
from attentive_probes.probe.sweep import SHARED_ADAPTER
from attentive_probes.training.state.checkpoint import check_output_dir


def check_recipe(recipe: Recipe) -> dict[str, HeadRun]:
    """Check a recipe as far as it can be without data and weights, and return its heads.

    Raises:
        ValueError: If the output folder holds a run, a head does not fit the backbone, or a name is unknown.
    """
    check_output_dir(Path(recipe.train.output_dir), recipe.train.overwrite, recipe.train.resume)
    runs = recipe.head_runs()
    if not runs:
        raise ValueError("The recipe has no heads.")
    check_parts("head", runs)
    check_parts("reference", recipe.evaluation.references)
    families = {name: run.family or "" for name, run in runs.items()}
    for key in ("baseline", "attention_head", "layers_head"):
        name = getattr(recipe.evaluation, key)
        if name is not None:
            check_name(name, families, f"head in evaluation.{key}:")
    if taken := sorted(runs.keys() & recipe.evaluation.references.keys()):
        raise ValueError(f"{taken} are names of heads and of references; rename one of each.")
    if not isinstance(getattr(torch, recipe.backbone.dtype, None), torch.dtype):
        raise ValueError(unknown_name("backbone.dtype", recipe.backbone.dtype, ("float32", "bfloat16", "float16")))
    if recipe.backbone.quantization is not None:
        quantization_of(recipe.backbone.quantization)
        if recipe.backbone.random_weights or recipe.lora is not None:
            raise ValueError("backbone.quantization is for trained weights that stay frozen; leave it out here.")
    config, _ = describe_backbone(recipe.backbone.name, **backbone_options(recipe))
    check_heads(config, {**runs, **{name: HeadRun(r.head) for name, r in recipe.evaluation.references.items()}})
    check_selection(recipe)
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
        if recipe.data.streaming or not recipe.data.has_test or evaluation.num_images < 1:
            raise ValueError(
                f"evaluation.{key}={name!r} is drawn over test images: it needs a test_split that is no stream, and "
                "num_images of at least one."
            )
        meant = [run.head for head, run in runs.items() if name in (head, run.family, BEST)]
        if key == "attention_head" and not any(map(_reads_patches, meant)):
            raise ValueError(f"evaluation.{key}={name!r} reads no patches, so its attention cannot be drawn.")
    if evaluation.references and (recipe.data.streaming or not recipe.data.problem.has_one_class):
        raise ValueError("evaluation.references needs single labels and no stream.")
    if evaluation.references and recipe.data.tokens == "cached" and recipe.data.augmentation is not None:
        raise ValueError(
            "evaluation.references reads plain images, the cache augmented ones; set data.augmentation=null."
        )
    if evaluation.layers_head is not None and not recipe.data.problem.has_one_class:
        raise ValueError("evaluation.layers_head draws accuracies; it needs single labels.")


def _reads_patches(head: HeadConfig) -> bool:
    return any(item.kind == "patches" for item in head.reading.items)


def backbone_options(recipe: Recipe) -> dict[str, Any]:
    """Which backbone and in which size, as `describe_backbone` takes it.

    Raises:
        ValueError: If the image size is malformed.
    """
    size = recipe.backbone.image_size
    if size is not None and len(size) != 2:
        raise ValueError(f"backbone.image_size is {size}; write [height, width].")
    return {
        "revision": recipe.backbone.revision,
        "image_size": (size[0], size[1]) if size else None,
        "trust_remote_code": recipe.backbone.trust_remote_code,
    }
