"""Heads trained to the end on some of the images of a token cache, with nothing selected on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.probe.head_run import HeadRun
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems import Scores
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.checkpoint import HeadStates
from attentive_probes.training.state.head_weights import settled
from attentive_probes.training.state.notes import head_rates
from attentive_probes.training.steps.loop import TrainingLoop
from attentive_probes.training.steps.split_use import heads_by_seed
from attentive_probes.training.steps.step_count import balanced_class_weights, fit_to_images


class Fitted(NamedTuple):
    """Name -> scores on the images that were held, in their order, and tensors, of every head that did not diverge."""

    scores: dict[str, Scores]
    states: HeadStates


def fresh(sweep: ProbeSweep, runs: Mapping[str, HeadRun] | None = None) -> ProbeSweep:
    """New heads on the backbone of a sweep: its own, or other ones."""
    return ProbeSweep(sweep.config, sweep.backbone, runs or sweep.runs, processor=sweep.image_processor)


def fit_heads(
    sweep: ProbeSweep,
    arguments: ProbeTrainingArguments,
    cache: TokenCache,
    places: np.ndarray,
    held: np.ndarray | None,
    accelerator: Accelerator,
) -> Fitted:
    """Train all heads of a sweep to the end of their schedule, and score them on other images.

    Args:
        sweep: Fresh heads.
        arguments: Training settings; batch size and epochs that are left to us fit the number of images.
        cache: Cached tokens, of one view per image.
        places: Images `(K,)` to learn from.
        held: Images `(V,)` to score; `None` for none.
        accelerator: Where to run.
    """
    set_seed(arguments.seed, device_specific=True)  # dropout and noise
    settings = replace(fit_to_images(arguments, len(places)), save_steps=None)
    parts = settings.gradient_accumulation_steps
    ranks = (accelerator.process_index, accelerator.num_processes)
    plan = StepPlan(settings.batch_size, settings.drop_last, parts, *ranks)
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_class_weights(cache.labels[torch.from_numpy(places)], sweep.config.num_labels)
    by_seed = heads_by_seed(sweep, settings, cache)
    options: dict[str, Any] = {"places": places, "train": True}
    train = [(names, make_cached_loader(cache, plan, seed=seed, **options)) for seed, names in by_seed.items()]
    scoring = replace(plan, batch_size=settings.eval_batch_size, drop_last=False, parts=1)
    validation = make_cached_loader(cache, scoring, train=False, places=held)
    loop = TrainingLoop(sweep, settings, head_rates(sweep, settings), accelerator, train, validation, weights)
    epoch = 0
    while not loop.finished:
        epoch += 1
        loop.run_epoch(epoch, save=lambda: None)
        loop.keep_only(sweep.active - loop.diverged.keys())
    with settled(sweep):
        scores = loop.evaluate() if held is not None and sweep.active else {}
        scores = {name: found for name, found in scores.items() if found.are_finite}
        states = {name: sweep.learned(name) for name in sweep.runs if name in sweep.active}
    loop.close()
    return Fitted(scores, states)
