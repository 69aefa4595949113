"""Arithmetic of training recipes: batch size, number of epochs and steps, class weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from attentive_probes.data.steps import StepPlan
from attentive_probes.training.arguments import ProbeTrainingArguments

ADAPTER_RATE = 2e-3  # of an adapter whose heads have automatic rates
MIN_BATCHES = 5
LARGEST_BATCH, LEAST_BATCH = 256, 16
ENOUGH_STEPS, FEWEST_EPOCHS, MAX_EPOCHS = 500, 10, 100


def usual_batch_size(num_images: int) -> int:
    """The batch size where none is named: 256, less on fewer than 4,096 images, of which an epoch then has 16 to 32.

    It is a power of two, 16 at least where there are as many images; of fewer than 256 images an epoch has less.
    """
    size = 2 ** max(0, int(math.log2(max(num_images, 1) / 16)))
    return max(1, min(max(size, LEAST_BATCH), LARGEST_BATCH, num_images))


def fitting_batch_size(requested: int, num_images: int, min_batches: int = MIN_BATCHES) -> int:
    """The batch size of ALF's rule (arXiv 2601.09322): enough batches per epoch, none of them nearly empty.

    `requested` stays if it gives at least `min_batches` full batches and a left-over of none or at least half a batch.
    Else it is the largest size that gives no fewer full batches than that, with such a left-over; this may exceed the
    request a little.

    Raises:
        ValueError: If there are fewer images than batches.
    """
    if num_images < min_batches:
        raise ValueError(f"{num_images} images do not fill {min_batches} batches; switch fit_batch_size off.")
    if _fits(requested, num_images, min_batches):
        return requested
    wanted = max(min_batches, num_images // requested)
    return next(size for size in range(num_images // wanted + 1, 0, -1) if _fits(size, num_images, wanted))


def _fits(size: int, num_images: int, min_batches: int) -> bool:
    full, left_over = divmod(num_images, size)
    return full >= min_batches and (left_over == 0 or left_over >= size / 2)


def usual_epochs(steps_per_epoch: int) -> int:
    """The number of epochs where none is named: as many as make 500 steps, but between 10 and 100."""
    return min(max(math.ceil(ENOUGH_STEPS / steps_per_epoch), FEWEST_EPOCHS), MAX_EPOCHS)


def epochs_for(num_train_epochs: int, steps_per_epoch: int, min_steps: int) -> int:
    """The number of epochs, raised until they hold at least `min_steps` optimizer steps."""
    return max(num_train_epochs, math.ceil(min_steps / steps_per_epoch))


def total_steps(arguments: ProbeTrainingArguments, steps_per_epoch: int) -> int:
    """Optimizer steps of a run whose epochs have so many; its number of epochs is a definite one."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return steps_per_epoch * epochs_for(arguments.num_train_epochs, steps_per_epoch, arguments.min_steps)


def fit_to_images(arguments: ProbeTrainingArguments, num_images: int | None) -> ProbeTrainingArguments:
    """The arguments with everything named: what is left to us fits the number of training images.

    Batch size and epochs are the usual ones for so many images; a batch size fills an epoch evenly on demand.

    Args:
        arguments: Training settings.
        num_images: Number of training images; `None` for a stream, whose length is unknown.

    Raises:
        ValueError: If an epoch of a stream, or of too few images, is to be filled evenly.
    """
    size, epochs, rate = arguments.batch_size, arguments.num_train_epochs, arguments.lora_learning_rate
    if rate is None and isinstance(arguments.learning_rate, str):
        rate = ADAPTER_RATE
    if num_images is None:
        if arguments.fit_batch_size:
            raise ValueError("A stream has no known length; switch fit_batch_size off.")
        size, epochs = size or LARGEST_BATCH, epochs or 1
    else:
        size = size or usual_batch_size(num_images)
        size = fitting_batch_size(size, num_images) if arguments.fit_batch_size else size
        epochs = epochs or usual_epochs(StepPlan(size, arguments.drop_last).num_steps(num_images))
    return replace(arguments, batch_size=size, num_train_epochs=epochs, lora_learning_rate=rate)


class Steps(NamedTuple):
    """What a run takes: optimizer steps in all, and images that they see."""

    total: int
    images: int


def steps_of(arguments: ProbeTrainingArguments, num_images: int) -> Steps:
    """How many steps a run on so many images takes; training, plans and estimates of time count by this.

    Raises:
        ValueError: As `fit_to_images`.
    """
    fitted = fit_to_images(arguments, num_images)
    per_epoch = StepPlan(fitted.batch_size, fitted.drop_last).num_steps(num_images)
    total = total_steps(fitted, per_epoch)
    return Steps(total, round(total / per_epoch * min(per_epoch * fitted.batch_size, num_images)))


def balanced_class_weights(labels: Tensor, num_labels: int) -> Tensor:
    """Weights `(C,)` that make every class count the same, `n / (C n_c)`; 0 for a class without images.

    Args:
        labels: Class ids `(N,)`.
        num_labels: Number of classes C.
    """
    counts = torch.bincount(labels, minlength=num_labels)
    return torch.where(counts > 0, len(labels) / (num_labels * counts.clamp(min=1)), 0.0)
