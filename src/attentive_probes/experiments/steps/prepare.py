"""What a recipe runs on: its heads on their backbone, and its splits, all checked before any work."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.cache_tokens import open_splits
from attentive_probes.experiments.steps.check_recipe import backbone_options, check_recipe
from attentive_probes.experiments.steps.draw_splits import load_splits
from attentive_probes.experiments.steps.taken_for import taken_for
from attentive_probes.probe.files.read_parts import add_adapter, read_config
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.steps.split_use import check_batches
from attentive_probes.training.steps.step_count import fit_to_images

logger = logging.getLogger(__name__)


def prepare(recipe: Recipe) -> tuple[ProbeSweep, RawSplits, dict[str, ImageSplit | ImageStream | None]]:
    """The heads of a recipe on their backbone, and its splits as they were read and opened, all checked.

    Raises:
        ValueError: As `run_recipe`.
    """
    runs = check_recipe(recipe)
    data = recipe.data
    splits = load_splits(data)
    logger.info("%s: %s.", data.dataset, taken_for(splits, data))
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
    check_batches(train, sweep, fit_to_images(recipe.train, train.num_images))
    if isinstance(test, ImageSplit) and len(test) < 2:
        raise ValueError(
            "The test split holds one image, which says nothing of a head; name another data.test_split, or a larger "
            "data.test_fraction."
        )


def _is_of(sweep: ProbeSweep, stored: str) -> bool:
    """Whether a stored fingerprint is that of the backbone of a sweep."""
    return sweep.backbone.weights() is not None and sweep.backbone.has_fingerprint(stored)


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
        if theirs != ours and not (what == "backbone" and _is_of(sweep, str(theirs))):
            raise ValueError(
                f"The probe {probe!r} cannot be the start: its {what} is {theirs}, that of the run is {ours}."
            )
    found = ProbeForImageClassification.from_pretrained(probe, backbone=sweep.backbone)
    sweep.heads[name].load_state_dict(found.head.state_dict())
    sweep.heads[name].is_trained = True
