"""One round of choosing: some images through one backbone, and its heads judged on those that they never saw."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attentive_probes.data.splitting.folds import folds_of
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.runs.candidates import Candidate, class_weights, strata_of
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.cache_tokens import cache_splits
from attentive_probes.experiments.steps.draw_splits import load_splits
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.hub.licences import backbone_licence
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.machine.timing import seconds_of
from attentive_probes.probe.making.describe import reading_of
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.scores.statistics import clustered_error
from attentive_probes.training.cross_validation import cross_validate

FOLDS = 3
TIMED = (1, 64)  # images per pass


@dataclass
class Trial:
    """A backbone after a round.

    Args:
        backbone: Its name.
        candidates: Its heads and references, over the same images for every backbone.
        num_images: How many images they are judged by.
        seconds: What the round took.
        facts: Trained parameters, megabytes, milliseconds per image, bytes of cached tokens, licence.
        sweep: Its heads, untrained.
        pool: Its tokens.
        groups: Group `(N,)` of each of the images, where these are no independent draws.
        strata: Class `(N,)` of each, where classes are to count the same.
    """

    backbone: str
    candidates: list[Candidate]
    num_images: int
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    sweep: ProbeSweep | None = None
    pool: TokenCache | None = None
    groups: np.ndarray | None = None
    strata: np.ndarray | None = None

    @property
    def best(self) -> Candidate:
        """The candidate with the best mean of those that can be saved."""
        able = [one for one in self.candidates if one.can_win]
        return max(able, key=lambda one: (self.values_of(one).mean(), -one.parameters))

    def values_of(self, candidate: Candidate) -> np.ndarray:
        """What a candidate is worth on each image `(N,)`; the mean is what it is judged by."""
        return class_weights(len(candidate.by_image), self.strata) * candidate.by_image

    def error_of(self, values: np.ndarray) -> float:
        """Standard error of the mean of values `(N,)` over these images."""
        return clustered_error(values, self.groups, self.strata)


def round_recipe(recipe: Recipe, num_images: int | None, draw: int = 0) -> Recipe:
    """The recipe of a round: one rate and one seed, and so many of the images.

    Args:
        recipe: What `automatic_recipe` made for a backbone.
        num_images: Number of images of training and validation together; `None` for all.
        draw: Number of the random draw; draws of rising sizes lie in each other.
    """
    fraction = None if num_images is None else share_of(recipe.data, num_images)
    folder = str(Path(recipe.train.output_dir).parent / "rounds")
    return replace(
        recipe,
        data=replace(recipe.data, fraction=fraction, draw=draw),
        grid={"learning_rate": ["auto"], "seed": [0]},
        train=replace(recipe.train, output_dir=folder, overwrite=True),
    )


def share_of(data: DataRecipe, num_images: int) -> float | None:
    """The share of training images that leaves so many, validation included; `None` for all of them."""
    parts = load_splits(replace(data, fraction=None)).parts
    total = sum(len(parts[name].data) for name in ("train", "validation"))
    return None if num_images >= total else num_images / total


def judge(recipe: Recipe, *, with_speed: bool = True) -> Trial:
    """Run a round for one backbone; its tokens are cached, and found again by the next round.

    Args:
        recipe: As `round_recipe` gives it.
        with_speed: Whether to time the backbone.

    Raises:
        ValueError: If the data or the backbone cannot be read.
    """
    start = time.perf_counter()
    sweep, raw, opened = prepare(recipe)
    references = recipe.evaluation.references
    readings = [*sweep.readings, *(reading_of(sweep.config, one.head) for one in references.values())]
    needed = {name: opened[name] for name in ("train", "validation")}
    caches = cache_splits(recipe.data, sweep, needed, list(dict.fromkeys(readings)), recipe.train, {}, True)
    pool = caches["pool"]
    assert pool is not None
    accelerator = make_accelerator()
    groups = raw.pool_groups(opened)
    groups = None if groups is None else groups[pool.images.numpy()]
    folds = folds_of(pool.labels.numpy(), FOLDS, recipe.data.split_seed, groups)
    candidates = cross_validate(sweep, references, recipe.train, pool, folds, accelerator)
    seconds = time.perf_counter() - start
    strata = strata_of(recipe.train.selection_metric, pool.labels.numpy())
    facts = _facts(sweep, pool, with_speed)
    return Trial(recipe.backbone.name, candidates, len(pool), seconds, facts, sweep, pool, groups, strata)


def _facts(sweep: ProbeSweep, pool: TokenCache, with_speed: bool) -> dict[str, Any]:
    size = sum(p.numel() * p.element_size() for p in sweep.backbone.parameters())
    found = {
        "backbone_megabytes": size / 1e6,
        "cache_bytes_per_image": pool.manifest.bytes_per_row_of(pool.items),
        "licence": backbone_licence(sweep.config),
    }
    if with_speed:
        found |= {f"milliseconds_at_{count}": _milliseconds(sweep, count) for count in TIMED}
    return found


@torch.inference_mode()
def _milliseconds(sweep: ProbeSweep, count: int) -> float:
    """Milliseconds per image of the backbone, so many images at a time; the median of three passes."""
    height, width = sweep.config.image_size
    device = next(sweep.backbone.parameters()).device
    pixels = torch.zeros(count, sweep.backbone.num_channels, height, width, device=device)
    return 1000 * seconds_of(lambda: sweep.read(pixels), device, calls=3) / count


def behind_best(rounds: Sequence[Trial]) -> Mapping[str, np.ndarray]:
    """Backbone -> how much less often than the best one's its best head was right, image by image `(N,)`."""
    best = max(rounds, key=lambda one: one.values_of(one.best).mean())
    return {one.backbone: best.values_of(best.best) - one.values_of(one.best) for one in rounds}
