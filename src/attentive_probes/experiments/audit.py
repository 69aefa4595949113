"""What is wrong with somebody's images and labels, as far as the tokens of a frozen backbone tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attentive_probes.analysis.figures.drawing import has_matplotlib
from attentive_probes.auditing.audit_splits import audit_splits, held_splits
from attentive_probes.auditing.findings import KINDS, Audit
from attentive_probes.checks import unknown_name
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.experiments.recipe import HeadBlock, Recipe
from attentive_probes.experiments.steps.cache_tokens import cache_splits
from attentive_probes.experiments.steps.check_recipe import backbone_options
from attentive_probes.experiments.steps.pictures import draw_audit
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head_run import HeadRun, check_heads
from attentive_probes.probe.making.describe import describe_backbone


def audit_recipe(recipe: Recipe, folder: Path, kinds: Sequence[str] = ()) -> tuple[Audit, RawSplits]:
    """Audit the data of a recipe, whatever its heads, and write what is found to a folder.

    Args:
        recipe: Backbone and data.
        folder: For `audit.json`, `audit.csv` and, with matplotlib, the pictures.
        kinds: What somebody means to leave out; checked before the work.

    Raises:
        ValueError: If the data cannot be audited, or a kind is unknown.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(unknown_name("kind of finding", kind, KINDS))
    if recipe.data.streaming or not recipe.data.problem.has_one_class:
        raise ValueError("An audit looks at images with one label each that are no stream.")
    reader = audit_heads(recipe)
    sweep, raw, opened = prepare(reader)
    caches = cache_splits(reader.data, sweep, opened, sweep.readings, reader.train, {})
    held = held_splits(opened, caches)
    accelerator = make_accelerator()
    found = audit_splits(sweep, held.splits, held.caches, sweep.readings[0], accelerator, raw)
    if accelerator.is_main_process:
        found.save(folder)
        if has_matplotlib():
            draw_audit(found, held.splits, folder)
    return found, raw


def audit_heads(recipe: Recipe) -> Recipe:
    """The recipe of an audit: class token and mean patch of the same images, and nothing to train."""
    config, _ = describe_backbone(recipe.backbone.name, **backbone_options(recipe))
    head: dict[str, Any] = {"pooling": "concat", "tokens": ["cls", "mean"]}
    try:
        check_heads(config, {"audit": HeadRun(HeadConfig(**head))})
    except ValueError:  # no class token
        head["tokens"] = ["mean"]
    data = replace(recipe.data, tokens="cached", augmentation=None)
    train = replace(recipe.train, output_dir=str(Path(recipe.data.cache.folder) / "audit"), overwrite=True)
    return Recipe(recipe.backbone, data, {"audit": HeadBlock(**head)}, train)
