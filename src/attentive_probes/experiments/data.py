"""From the data block of a recipe to splits that can be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

from attentive_probes.assets import EMBEDDED_PREFIX
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.images import ImageSplit, ImageStream, check_columns, open_split
from attentive_probes.data.labels import LabelEncoder, class_names
from attentive_probes.data.load import load_split
from attentive_probes.data.low_shot import subset
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.experiments.recipe import DataRecipe
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.tokens import Reading
from attentive_probes.training.arguments import ProbeTrainingArguments


def load_train_and_validation(data: DataRecipe, seed: int) -> tuple[Any, Any]:
    """The training split and what epoch and head are selected on: a split of its own, or a part held out of train.

    Raises:
        ValueError: If a split is missing, or the validation split is the test split.
    """
    train, validation = _whole_train_and_validation(data, seed)
    if data.shots is not None or data.fraction is not None:
        if isinstance(train, IterableDataset):
            raise ValueError("shots and fraction cannot be drawn from a stream.")
        train = subset(train, data.images.label_column, shots=data.shots, fraction=data.fraction, draw=data.draw)
    return train, validation


def _whole_train_and_validation(data: DataRecipe, seed: int) -> tuple[Any, Any]:
    train = load_split_of(data, data.train_split)
    if data.validation_split is not None:
        is_test = data.validation_split == data.test_split and not data.allow_selection_on_test
        if is_test or data.validation_split == data.train_split:
            raise ValueError(
                f"The validation split {data.validation_split!r} is also the training or test split; "
                "set validation_split to null to hold a part of train out, or allow_selection_on_test to be marked."
            )
        return train, load_split_of(data, data.validation_split)
    if isinstance(train, IterableDataset):
        raise ValueError("Nothing can be held out of a stream; name a validation_split.")
    column = data.images.label_column
    check_columns("train", train.column_names, data.images)
    if data.problem_type == "single_label_classification":
        train = train if hasattr(train.features[column], "names") else train.class_encode_column(column)
        parts = train.train_test_split(data.validation_fraction, seed=seed, stratify_by_column=column)
    else:
        parts = train.train_test_split(data.validation_fraction, seed=seed)
    return parts["train"], parts["test"]


def load_split_of(data: DataRecipe, split: str) -> Dataset | IterableDataset:
    """One split of the recipe's dataset."""
    return load_split(data.dataset, split, name=data.name, revision=data.revision, streaming=data.streaming)


def labels_of(data: DataRecipe, train: Dataset | IterableDataset) -> list[str] | None:
    """Names of the classes: those of the recipe, else those that the training split knows.

    Raises:
        ValueError: If neither names them.
    """
    if data.labels is not None or data.num_labels is not None:
        return data.labels
    if train.features is None:
        raise ValueError("The stream does not know its classes; list their names as data.labels.")
    check_columns("train", list(train.features), data.images)
    return class_names(train, data.images.label_column)


def open_splits(
    data: DataRecipe, sweep: ProbeSweep, datasets: Mapping[str, Dataset | IterableDataset | None]
) -> dict[str, ImageSplit | ImageStream | None]:
    """Check every split that there is and open it for reading.

    Raises:
        ValueError: If a column, label or image does not fit.
    """
    encoder = LabelEncoder(sweep.config)
    return {
        name: None if dataset is None else open_split(name, dataset, data.images, encoder)
        for name, dataset in datasets.items()
    }


def cache_splits(
    data: DataRecipe,
    sweep: ProbeSweep,
    splits: Mapping[str, ImageSplit | ImageStream | None],
    readings: list[Reading],
    arguments: ProbeTrainingArguments,
) -> dict[str, TokenCache | None]:
    """The token cache of every split; only that of the training split holds augmented views.

    Raises:
        ValueError: If the backbone has no image processor, or the disk is too small.
    """
    if sweep.image_processor is None:
        raise ValueError("The backbone came without a usable image processor.")
    caches: dict[str, TokenCache | None] = {}
    for name, split in splits.items():
        options: dict[str, Any] = {"seed": arguments.seed, "num_workers": arguments.num_workers}
        cache = data.cache
        if name == "train":
            options["augmentation"] = data.augmentation
        else:
            cache = replace(cache, views=1)
        if split is None:
            caches[name] = None
        else:
            assert isinstance(split, ImageSplit)  # streams were refused when the recipe was read
            processor = sweep.image_processor
            caches[name] = build_token_cache(sweep.backbone, split, readings, processor, cache, **options)
    return caches


def describe_dataset(data: DataRecipe) -> dict[str, Any]:
    """The dataset of a recipe, as results and model cards name it."""
    on_hub = not data.dataset.startswith(EMBEDDED_PREFIX) and not Path(data.dataset).exists()
    return {
        "name": data.dataset if on_hub else Path(data.dataset).name,
        "on_hub": on_hub,
        "config": data.name,
        "revision": data.revision,
        "train_split": data.train_split,
        "validation_split": data.validation_split,
        "test_split": data.test_split,
    }
