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
from attentive_probes.data.augment import Augmentation
from attentive_probes.data.batches import make_cached_loader, make_collator, make_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import FLOAT_TARGETS, LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.steps import StepLoader, StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.fingerprint import bytes_fingerprint
from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.rules import balanced_class_weights

AnySplit: TypeAlias = ImageSplit | ImageStream | TokenCache
AnyDataset: TypeAlias = Union[Dataset, IterableDataset, TorchDataset, AnySplit]  # noqa: UP007 (datasets are untyped)


def open_any(
    name: str,
    dataset: AnyDataset,
    sweep: ProbeSweep,
    images: ImageOptions,
    encoder: LabelEncoder,
    shuffle: tuple[int, int] | None,
) -> AnySplit:
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
    split: AnySplit,
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
    collator = make_collator(split, processor, backbone, augmentation if train else None, seed)
    return make_loader(split, collator, plan, train=train, seed=seed, num_workers=arguments.num_workers)


def check_batches(split: AnySplit, sweep: ProbeSweep, arguments: ProbeTrainingArguments) -> None:
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
    if isinstance(split, ImageStream):
        return
    full, rest = divmod(len(split), arguments.batch_size)
    if rest == 1 and not (arguments.drop_last and full):
        raise ValueError(
            f"The last batch of {len(split)} training images, {arguments.batch_size} at a time, is a single image, of "
            "which batch normalization learns nothing; set drop_last, or another batch_size."
        )


def split_size(split: AnySplit, num_workers: int) -> dict[str, Any]:
    """Number of images of a split, and of those left out as unreadable; `None` for what cannot be known.

    A stream has no length, and what worker processes leave out on the way is not counted.
    """
    on_the_way = isinstance(split, ImageStream) or (isinstance(split, ImageSplit) and not split.is_checked)
    return {
        "images": None if isinstance(split, ImageStream) else len(split),
        "unreadable": None if on_the_way and num_workers else split.num_unreadable,
    }


def num_images_of(split: AnySplit) -> int | None:
    """Number of images of a split; `None` for a stream."""
    return None if isinstance(split, ImageStream) else len(split)


def class_weights_of(split: AnySplit, arguments: ProbeTrainingArguments, encoder: LabelEncoder) -> Tensor | None:
    """Weights `(C,)` of the loss, where they are asked for.

    Raises:
        ValueError: If the split is a stream, or its labels are no class ids.
    """
    if arguments.class_weights == "none":
        return None
    if isinstance(split, ImageStream) or encoder.problem_type in FLOAT_TARGETS:
        raise ValueError("class_weights='balanced' needs class ids that can be counted: no stream, one label each.")
    return balanced_class_weights(
        split.labels if isinstance(split, TokenCache) else split.targets(), encoder.num_labels
    )


def heads_by_seed(sweep: ProbeSweep, arguments: ProbeTrainingArguments, split: AnySplit) -> dict[int, list[str]]:
    """Seed -> names of the heads that see the same images at a time.

    Raises:
        ValueError: If heads of several seeds would read one stream.
    """
    found: dict[int, list[str]] = {}
    for name, run in sweep.runs.items():
        found.setdefault(arguments.seed if run.seed is None else run.seed, []).append(name)
    if len(found) > 1 and isinstance(split, ImageStream):
        raise ValueError(f"A stream is read in one order, but the heads have the seeds {sorted(found)}; use one seed.")
    return found


def split_fingerprint(split: AnySplit) -> str:
    """What a split is known by: content, order and targets of its images.

    Of images that were not read, the fingerprint of their dataset; of a stream, its name.
    """
    if isinstance(split, ImageStream):
        return f"stream {split.name}"
    if isinstance(split, TokenCache):
        return split.fingerprint()
    images = split.content() if split.knows_content else getattr(split.data, "_fingerprint", "")
    return bytes_fingerprint(bytes_fingerprint(images) + bytes_fingerprint(split.targets().numpy()))
