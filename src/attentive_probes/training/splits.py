"""The splits of a run, whatever form they come in: images, streams of images, or cached tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias, Union

from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone
from attentive_probes.data.augment import Augmentation
from attentive_probes.data.batches import Collator, make_cached_loader, make_collator, make_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import FLOAT_TARGETS, LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.rules import balanced_class_weights, fitting_batch_size

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
    if isinstance(dataset, TokenCache | ImageSplit | ImageStream):
        return dataset
    return open_split(name, dataset, images, encoder, num_channels=sweep.backbone.num_channels, shuffle=shuffle)


def split_loader(
    split: AnySplit,
    processor: BaseImageProcessor,
    backbone: Backbone,
    augmentation: Augmentation | None,
    arguments: ProbeTrainingArguments,
    *,
    train: bool,
) -> tuple[DataLoader, Collator | TokenCache]:
    """The loader of a split, not yet prepared for several processes, and what is told the epoch."""
    batch_size = arguments.eval_batch_size
    if train:
        batch_size = arguments.batch_size // arguments.gradient_accumulation_steps
    options: dict[str, Any] = {"train": train, "drop_last": arguments.drop_last}
    if isinstance(split, TokenCache):
        return make_cached_loader(split, batch_size, seed=arguments.seed, **options), split
    collator = make_collator(split, processor, backbone, augmentation if train else None, arguments.seed, train)
    return make_loader(split, collator, batch_size, num_workers=arguments.num_workers, **options), collator


def split_size(split: AnySplit, num_workers: int) -> dict[str, Any]:
    """Number of images of a split, and of those left out as unreadable; `None` for what cannot be known.

    A stream has no length, and what worker processes leave out on the way is not counted.
    """
    on_the_way = isinstance(split, ImageStream) or (isinstance(split, ImageSplit) and split.digests is None)
    return {
        "images": None if isinstance(split, ImageStream) else len(split),
        "unreadable": None if on_the_way and num_workers else split.num_unreadable,
    }


def fit_batch_size(arguments: ProbeTrainingArguments, split: AnySplit) -> ProbeTrainingArguments:
    """The arguments with a batch size that fills an epoch of the training split evenly, where that is asked for.

    Raises:
        ValueError: If the split is a stream, or too small.
    """
    if not arguments.fit_batch_size:
        return arguments
    if isinstance(split, ImageStream):
        raise ValueError("A stream has no known length; switch fit_batch_size off.")
    return replace(arguments, batch_size=fitting_batch_size(arguments.batch_size, len(split)))


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
