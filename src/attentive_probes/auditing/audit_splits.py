"""What an audit of splits finds: copies, likely wrong labels, leaks, odd sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from attentive_probes.auditing.findings import JUDGE, KINDS, Audit, Finding
from attentive_probes.auditing.image_index import ImageIndex
from attentive_probes.auditing.label_errors import cross_fitted, label_suspects, mutual_confusions
from attentive_probes.auditing.neighbours import (
    equal_pixels,
    find_neighbours,
    near_duplicates,
    outliers,
    standardized,
)
from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.splitting.folds import folds_of
from attentive_probes.data.splitting.groups import joined
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.token_cache import TokenCache, cached_items, held_as
from attentive_probes.evaluation.references import Features, read_features
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.making.describe import reading_of
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.tokens import Reading

MAX_IMAGES = 5_000  # that a run audits beside; a call of its own audits any number
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
    index = ImageIndex(splits, names, places, sweep.config.id2label, labels.numpy())
    neighbours = find_neighbours(standardized(features).to(accelerator.device))
    near = {(one, other): distance for one, other, distance in near_duplicates(neighbours)}
    small, sizes = index.thumbnails()
    for one, other, distance in equal_pixels(small):
        near[one, other] = min(distance, near.get((one, other), 1.0))
    findings = [*index.pairs(near)]
    findings += [index.finding("outlier", row, score) for row, score in outliers(neighbours)]
    together = _together(raw, splits, names, places, near)
    found_labels, confused, accuracy = _labels(index, features.to(accelerator.device), num_labels, together)
    settings: dict[str, Any] = {
        "backbone": sweep.config.backbone_name_or_path,
        "reads": [str(item) for item in reading.items],
    }
    settings |= {JUDGE: accuracy, "sizes": _sizes(sizes, sweep.config.image_size)}
    findings += found_labels
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), -finding.score))
    return Audit(findings, confused, index.classes(), settings)


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
    index: ImageIndex, features: Tensor, num_labels: int, together: np.ndarray
) -> tuple[list[Finding], list[dict[str, Any]], float | None]:
    """Likely label errors, pairs of classes that are taken for each other, and how often what judges them is right."""
    labels = index.labels
    if (np.bincount(labels) > 0).sum() < 2 or len(np.unique(together)) < 2 * NUM_FOLDS:
        return [], [], None
    targets = torch.from_numpy(labels).to(features.device)
    probabilities = cross_fitted(features, targets, folds_of(labels, NUM_FOLDS, 0, together), num_labels)
    suspects = label_suspects(probabilities, labels)
    findings = [index.finding("label", one.row, one.margin, one.likely) for one in suspects]
    confused: list[dict[str, Any]] = []
    for pair in mutual_confusions(probabilities, labels):
        shares = {"first_as_second": pair.first_as_second, "second_as_first": pair.second_as_first}
        confused.append({"first": index.id2label[pair.first], "second": index.id2label[pair.second], **shares})
    return findings, confused, float((probabilities.argmax(1) == labels).mean())


def _features(sweep: ProbeSweep, cache: TokenCache, reading: Reading, accelerator: Accelerator) -> Features:
    plan = StepPlan(256, rank=accelerator.process_index, processes=accelerator.num_processes)
    return read_features(sweep, make_cached_loader(cache, plan, train=False), [reading], accelerator)[reading]


def _sizes(sizes: np.ndarray, read: Sequence[int]) -> dict[str, Any]:
    """The smallest, median and largest width and height, and how many images the backbone has to enlarge."""
    found = {name: [int(v) for v in np.quantile(sizes, share, axis=0)] for name, share in SHARES.items()}
    return {**found, "smaller than the backbone reads": int((sizes.min(1) < min(read)).sum()), "read": list(read)}
