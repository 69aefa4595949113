"""The splits of a run, whatever form they come in: images, streams of images, or cached tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias, Union

from accelerate import Accelerator
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone
from attentive_probes.data.batches import make_cached_loader, make_collator, make_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.split import Split
from attentive_probes.data.steps import StepLoader, StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems.target_scale import TargetScale
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.steps.step_count import balanced_class_weights

AnyDataset: TypeAlias = Union[Dataset, IterableDataset, TorchDataset, Split]  # noqa: UP007 (datasets are untyped)


def open_any(
    name: str,
    dataset: AnyDataset,
    sweep: ProbeSweep,
    images: ImageOptions,
    encoder: LabelEncoder,
    shuffle: tuple[int, int] | None,
) -> Split:
    """A split opened for reading; token caches are checked, and what was opened already stays as it is.

    Raises:
        ValueError: If its columns, labels, images or cached tokens do not fit.
    """
    if isinstance(dataset, TokenCache):
        dataset.check(sweep.backbone, sweep.readings)
        dataset.check_labels(sweep.config.num_labels, sweep.config.problem_type)
    if isinstance(dataset, TokenCache | ImageSplit | ImageStream):
        return dataset
    return open_split(name, dataset, images, encoder, num_channels=sweep.backbone.num_channels, shuffle=shuffle)


def split_loader(
    split: Split,
    processor: BaseImageProcessor,
    backbone: Backbone,
    augmentation: Augmentation | None,
    arguments: ProbeTrainingArguments,
    accelerator: Accelerator,
    *,
    train: bool,
    seed: int = 0,
) -> StepLoader:
    """The loader of this process's share of a split; `seed` is that of order and views in training."""
    plan = StepPlan(arguments.eval_batch_size)
    if train:
        plan = StepPlan(arguments.batch_size, arguments.drop_last, arguments.gradient_accumulation_steps)
    plan = replace(plan, rank=accelerator.process_index, processes=accelerator.num_processes)
    if isinstance(split, TokenCache):
        return make_cached_loader(split, plan, train=train, seed=seed)
    assert isinstance(split, ImageSplit | ImageStream)
    collator = make_collator(split, processor, backbone, augmentation if train else None, seed)
    return make_loader(split, collator, plan, train=train, seed=seed, num_workers=arguments.num_workers)


def check_batches(split: Split, sweep: ProbeSweep, arguments: ProbeTrainingArguments) -> None:
    """Check that no step of a training split gives batch normalization a single image.

    Raises:
        ValueError: If one does.
    """
    if not any(isinstance(module, BatchNorm) for head in sweep.heads.values() for module in head.modules()):
        return
    if arguments.batch_size <= arguments.gradient_accumulation_steps:
        raise ValueError(
            f"batch_size={arguments.batch_size} in {arguments.gradient_accumulation_steps} accumulation steps leaves "
            "single images, of which batch normalization learns nothing; use fewer steps."
        )
    if split.num_images is None:
        return
    full, rest = divmod(split.num_images, arguments.batch_size)
    if rest == 1 and not (arguments.drop_last and full):
        raise ValueError(
            f"The last batch of {split.num_images} training images, {arguments.batch_size} at a time, is a single "
            "image, of which batch normalization learns nothing; set drop_last, or another batch_size."
        )


def split_size(split: Split, num_workers: int) -> dict[str, Any]:
    """Number of images of a split, and of those left out as unreadable; `None` for what cannot be known.

    A stream has no length, and what worker processes leave out on the way is not counted.
    """
    return {
        "images": split.num_images,
        "unreadable": None if num_workers and not split.is_checked else split.num_unreadable,
    }


def class_weights_of(split: Split, arguments: ProbeTrainingArguments, encoder: LabelEncoder) -> Tensor | None:
    """Weights `(C,)` of the loss, where they are asked for.

    Raises:
        ValueError: If the split is a stream, or its labels are no class ids.
    """
    if arguments.class_weights == "none":
        return None
    targets = split.targets()
    if targets is None or not encoder.problem.has_one_class:
        raise ValueError("class_weights='balanced' needs class ids that can be counted: no stream, one label each.")
    return balanced_class_weights(targets, encoder.num_labels)


def scale_of(split: Split, encoder: LabelEncoder) -> TargetScale | None:
    """How the targets of a training split are scaled; `None` for a stream, whose targets are not known.

    Raises:
        ValueError: If there is nothing to learn.
    """
    targets = split.targets()
    return None if targets is None else encoder.problem.scale_of(targets)


def heads_by_seed(sweep: ProbeSweep, arguments: ProbeTrainingArguments, split: Split) -> dict[int, list[str]]:
    """Seed -> names of the heads that see the same images at a time.

    Raises:
        ValueError: If heads of several seeds would read one stream.
    """
    found: dict[int, list[str]] = {}
    for name, run in sweep.runs.items():
        found.setdefault(arguments.seed if run.seed is None else run.seed, []).append(name)
    if len(found) > 1 and split.num_images is None:
        raise ValueError(f"A stream is read in one order, but the heads have the seeds {sorted(found)}; use one seed.")
    return found
