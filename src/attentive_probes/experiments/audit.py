"""What is wrong with somebody's images and labels, as far as the tokens of a frozen backbone tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from attentive_probes.analysis.plots import has_matplotlib
from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.folds import folds_of
from attentive_probes.data.groups import joined
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.token_cache import TokenCache, cached_items, held_as
from attentive_probes.evaluation.audit import JUDGE, KINDS, Audit, Finding
from attentive_probes.evaluation.label_errors import cross_fitted, label_suspects, mutual_confusions
from attentive_probes.evaluation.neighbours import (
    equal_pixels,
    find_neighbours,
    near_duplicates,
    outliers,
    standardized,
)
from attentive_probes.evaluation.references import Features, read_features
from attentive_probes.experiments.audit_book import ImageBook
from attentive_probes.experiments.checks import backbone_options
from attentive_probes.experiments.data import cache_splits
from attentive_probes.experiments.pictures import draw_audit
from attentive_probes.experiments.prepare import prepare
from attentive_probes.experiments.recipe import HeadBlock, Recipe
from attentive_probes.experiments.splits import RawSplits
from attentive_probes.naming import unknown_name
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head_run import HeadRun, check_heads
from attentive_probes.probe.setup import describe_backbone, reading_of
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.processes import make_accelerator
from attentive_probes.tokens import Reading

MOST_IMAGES = 5_000  # that a run audits beside; a call of its own audits any number
NUM_FOLDS = 5
SHARES = {"smallest": 0.0, "median": 0.5, "largest": 1.0}  # quantiles of the sizes of images


class Held(NamedTuple):
    """Name -> images of each split that is held, and their tokens."""

    splits: dict[str, ImageSplit]
    caches: dict[str, TokenCache]


def held_splits(opened: Mapping[str, Any], caches: Mapping[str, Any]) -> Held:
    """Those of some splits whose images are held and cached."""
    names = [name for name, split in opened.items() if isinstance(split, ImageSplit)]
    names = [name for name in names if isinstance(caches.get(name), TokenCache)]
    return Held({name: opened[name] for name in names}, {name: caches[name] for name in names})


def audit_reading(sweep: ProbeSweep, caches: Mapping[str, Any]) -> Reading | None:
    """What an audit can read of the tokens that are cached: class token and mean patch, or one of them; else `None`."""
    items = next(cache for cache in caches.values() if isinstance(cache, TokenCache)).items
    taps = dict.fromkeys(tap for reading in sweep.readings for tap in reading.taps)
    for tap in ("last", *taps):
        for kinds in (("cls", "mean"), ("mean",), ("cls",)):
            tokens = tuple(f"{kind}@{tap}" for kind in kinds)
            try:
                reading = reading_of(sweep.config, HeadConfig("concat", tokens=tokens))
            except ValueError:
                continue
            if all(held_as(item, items) is not None for item in cached_items([reading])):
                return reading
    return None


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


def audit_splits(
    sweep: ProbeSweep,
    splits: Mapping[str, ImageSplit],
    caches: Mapping[str, TokenCache],
    reading: Reading,
    accelerator: Accelerator,
    raw: RawSplits | None = None,
) -> Audit:
    """Audit some splits together: copies, labels, images that are like no other, classes.

    Probes learn from all splits here, and choose nothing.

    Args:
        sweep: Anything on the backbone.
        splits: Name -> images, as they were opened.
        caches: Name -> their tokens.
        reading: What is read of these.
        accelerator: Where to run.
        raw: The splits as they were read, which know what belongs together.
    """
    names, num_labels = list(splits), sweep.config.num_labels
    found = [_features(sweep, caches[name], reading, accelerator) for name in names]
    features, labels = (torch.cat([part[i] for part in found]).cpu() for i in range(2))
    places = [np.searchsorted(splits[name].rows, caches[name].images.numpy()) for name in names]
    book = ImageBook(splits, names, places, sweep.config.id2label, labels.numpy())
    neighbours = find_neighbours(standardized(features).to(accelerator.device))
    near = {(one, other): distance for one, other, distance in near_duplicates(neighbours)}
    small, sizes = book.looks()
    for one, other, distance in equal_pixels(small):
        near[one, other] = min(distance, near.get((one, other), 1.0))
    findings = [*book.pairs(near)]
    findings += [book.finding("outlier", row, score) for row, score in outliers(neighbours)]
    together = _together(raw, splits, names, places, near)
    found_labels, confused, accuracy = _labels(book, features.to(accelerator.device), num_labels, together)
    settings: dict[str, Any] = {
        "backbone": sweep.config.backbone_name_or_path,
        "reads": [str(item) for item in reading.items],
    }
    settings |= {JUDGE: accuracy, "sizes": _sizes(sizes, sweep.config.image_size)}
    findings += found_labels
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), -finding.score))
    return Audit(findings, confused, book.classes(), settings)


def _together(
    raw: RawSplits | None,
    splits: Mapping[str, ImageSplit],
    names: Sequence[str],
    places: Sequence[np.ndarray],
    near: Mapping[tuple[int, int], float],
) -> np.ndarray:
    """What each image is judged apart from: its group, and images that are as good as equal to it."""
    groups = np.arange(sum(map(len, places))).astype(str)
    parts = [raw.parts[name] for name in names] if raw is not None else []
    if parts and all(part.groups is not None for part in parts):
        found = [part.groups_at(splits[n].rows[p]) for part, n, p in zip(parts, names, places, strict=True)]
        groups = np.concatenate([one for one in found if one is not None])
    return joined(groups, pairs=near.keys())


def _labels(
    book: ImageBook, features: Tensor, num_labels: int, together: np.ndarray
) -> tuple[list[Finding], list[dict[str, Any]], float | None]:
    """Likely label errors, pairs of classes that are taken for each other, and how often what judges them is right."""
    labels = book.labels
    if (np.bincount(labels) > 0).sum() < 2 or len(np.unique(together)) < 2 * NUM_FOLDS:
        return [], [], None
    targets = torch.from_numpy(labels).to(features.device)
    probabilities = cross_fitted(features, targets, folds_of(labels, NUM_FOLDS, 0, together), num_labels)
    suspects = label_suspects(probabilities, labels)
    findings = [book.finding("label", one.row, one.margin, one.likely) for one in suspects]
    confused: list[dict[str, Any]] = []
    for pair in mutual_confusions(probabilities, labels):
        shares = {"first_as_second": pair.first_as_second, "second_as_first": pair.second_as_first}
        confused.append({"first": book.id2label[pair.first], "second": book.id2label[pair.second], **shares})
    return findings, confused, float((probabilities.argmax(1) == labels).mean())


def _features(sweep: ProbeSweep, cache: TokenCache, reading: Reading, accelerator: Accelerator) -> Features:
    plan = StepPlan(256, rank=accelerator.process_index, processes=accelerator.num_processes)
    return read_features(sweep, make_cached_loader(cache, plan, train=False), [reading], accelerator)[reading]


def _sizes(sizes: np.ndarray, read: Sequence[int]) -> dict[str, Any]:
    """The smallest, median and largest width and height, and how many images the backbone has to enlarge."""
    found = {name: [int(v) for v in np.quantile(sizes, share, axis=0)] for name, share in SHARES.items()}
    return {**found, "smaller than the backbone reads": int((sizes.min(1) < min(read)).sum()), "read": list(read)}
