"""What a recipe would do, without a download: tokens, parameters, steps, bytes, beside the figures of its paper."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig

from attentive_probes.backbones.load import build_model
from attentive_probes.data.load import rows_of
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.check_recipe import backbone_options
from attentive_probes.experiments.steps.draw_splits import load_splits
from attentive_probes.experiments.steps.taken_for import taken_for
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.files.read_parts import add_adapter
from attentive_probes.probe.making.describe import describe_probe, layouts_of, reading_of, set_head
from attentive_probes.probe.making.head_cost import cost_of
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.steps.step_count import steps_of

PACKAGE = Path(__file__).parents[1]
SHAPES, SETS = PACKAGE / "backbones" / "published_shapes.csv", PACKAGE / "data" / "published_sets.csv"


@dataclass(frozen=True)
class PlannedHead:
    """A head of a plan.

    Args:
        name: Its name.
        runs: How many settings and seeds of it the grid has.
        parameters: Trained parameters, those of an adapter included.
        multiply_adds: Per image, of pooling and classifier.
        token_bytes: Of what it reads of an image, at 16 bits.
        published: Accuracy that the paper gives, if it does.
        is_second_hand: Whether that is known from notes about the paper alone.
    """

    name: str
    runs: int
    parameters: int
    multiply_adds: int
    token_bytes: int
    published: float | None = None
    is_second_hand: bool = False


@dataclass(frozen=True)
class Plan:
    """What a recipe would do.

    Args:
        heads: Its heads.
        backbone_parameters: Parameters of the backbone.
        num_labels: Number of classes.
        images: Split -> number of images, where it is known.
        steps: Optimizer steps, and 0 where the number of images is not known.
        cache_bytes: Bytes of all tokens that a cache would hold, 0 if nothing is cached or known.
        notes: What else is to be known of the protocol, and what local data were taken for.
        theirs: Changes that make it the protocol of the paper, where that differs.
    """

    heads: list[PlannedHead]
    backbone_parameters: int
    num_labels: int
    images: dict[str, int]
    steps: int
    cache_bytes: int
    notes: list[str]
    theirs: list[str]


def plan_recipe(recipe: Recipe) -> Plan:
    """Resolve a recipe as far as it goes without a network: every head is built on its backbone, without memory.

    Raises:
        ValueError: If the shape of the backbone, or the number of classes, is not known here, or a head does not fit.
    """
    sizes = _row(SETS, "dataset", recipe.data.dataset) or {}
    known = {name: int(sizes[name]) for name in ("train", "validation", "test") if sizes.get(name)}
    images = _role_sizes(recipe.data, known)
    num_labels = recipe.data.num_labels or len(recipe.data.labels or ()) or int(sizes.get("classes") or 0)
    what = ""
    if not num_labels and Path(recipe.data.dataset).expanduser().exists():  # which costs a look, and no download
        raw = load_splits(recipe.data)
        num_labels, what = len(raw.table.names), taken_for(raw, recipe.data)
        images = {role: len(part.data) for role, part in raw.parts.items() if isinstance(part.data, Dataset)}
    if not num_labels:
        raise ValueError("The number of classes is not known without the data; set data.num_labels for a dry run.")
    config = _described(recipe, num_labels)
    with torch.device("meta"):
        model = build_model(config.backbone_config)
    heads = _heads(recipe, config)
    readings = {reading_of(config, run.head) for run in recipe.head_runs().values()}
    items = {item: layouts_of(config, reading)[item.tap] for reading in readings for item in reading.items}
    per_image = sum(2 * layout.count(item.kind) * layout.width for item, layout in items.items())
    cached = per_image * sum(images.values()) if recipe.data.tokens == "cached" else 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    paper = recipe.paper
    notes, theirs = ([], []) if paper is None else (list(paper.notes), list(paper.theirs))
    notes += [what] if what else []
    return Plan(
        heads, parameters, num_labels, images, _steps(recipe.train, images.get("train", 0)), cached, notes, theirs
    )


def _heads(recipe: Recipe, config: ProbeConfig) -> list[PlannedHead]:
    found: dict[str, PlannedHead] = {}
    paper = recipe.paper
    published = {} if paper is None else paper.published
    for name, run in recipe.head_runs().items():
        family = run.family or name
        if family in found:
            continue
        cost = cost_of(config, run.head)
        found[family] = PlannedHead(
            family,
            sum((other.family or key) == family for key, other in recipe.head_runs().items()),
            cost.parameters + _adapter_parameters(recipe, config, run.head),
            cost.multiply_adds,
            cost.token_bytes,
            published.get(family),
            paper is not None and family in paper.second_hand,
        )
    return list(found.values())


def _adapter_parameters(recipe: Recipe, config: ProbeConfig, head: Any) -> int:
    if recipe.lora is None:
        return 0
    set_head(config, head)
    probe = ProbeForImageClassification(config)  # fresh weights: PEFT adapts what is in memory
    add_adapter(config, probe.backbone, recipe.lora.config(), 0)
    return sum(p.numel() for p in probe.backbone.parameters() if p.requires_grad)


def _described(recipe: Recipe, num_labels: int) -> ProbeConfig:
    """The configuration of a probe on the backbone, known here or from the table of published shapes."""
    options = backbone_options(recipe)
    shape = _row(SHAPES, "backbone", recipe.backbone.name)
    if shape is None:
        return describe_probe(recipe.backbone.name, num_labels=num_labels, **options)[0]
    backbone = AutoConfig.for_model(shape["model_type"], **json.loads(shape["options"]))
    size = options["image_size"] or (int(shape["image_size"]),) * 2
    with tempfile.TemporaryDirectory() as folder:
        backbone.save_pretrained(folder)
        config, _ = describe_probe(folder, num_labels=num_labels, image_size=size)
    config.backbone_name_or_path = recipe.backbone.name
    return config


def _role_sizes(data: DataRecipe, sizes: Mapping[str, int]) -> dict[str, int]:
    """Split of a run -> its number of images, from those of the data; what is held out comes off training."""
    if not sizes:
        return {}
    named = {"train": data.train_split, "validation": data.validation_split, "test": data.test_split}
    found = {}
    for role, split in named.items():
        try:
            parts = [] if split is None else rows_of(split, dict(sizes))
        except (ValueError, KeyError, AssertionError):  # a split of another name: nothing is known of it
            continue
        if parts:
            found[role] = sum(last - first for _, first, last in parts)
    for role, fraction in (("test", data.test_fraction), ("validation", data.validation_fraction)):
        if named[role] is None and fraction is not None and "train" in found:
            found[role] = round(fraction * found["train"])
            found["train"] -= found[role]
    return found


def _steps(arguments: ProbeTrainingArguments, count: int) -> int:
    if arguments.max_steps > 0:
        return arguments.max_steps
    return steps_of(arguments, count).total if count else 0


def _row(path: Path, key: str, value: str) -> dict[str, str] | None:
    with path.open(encoding="utf-8", newline="") as file:
        return next((row for row in csv.DictReader(file) if row[key] == value), None)
