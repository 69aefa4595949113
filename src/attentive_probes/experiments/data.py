"""From the data block of a recipe to splits that can be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset

from attentive_probes.assets import EMBEDDED_PREFIX
from attentive_probes.data.build_cache import bytes_to_write, open_cache, token_source
from attentive_probes.data.hold_out import hold_out, low_shot
from attentive_probes.data.image_split import ImageSplit, check_apart
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import check_columns
from attentive_probes.data.label_tables import make_table
from attentive_probes.data.labels import LabelEncoder, Labels, names_of
from attentive_probes.data.load import AnyData, load_named, same_rows
from attentive_probes.data.open_split import open_split
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.data.token_source import TokenSource
from attentive_probes.disk import check_space
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.probe.label_table import LabelTable
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.tokens import Reading
from attentive_probes.training.arguments import ProbeTrainingArguments


@dataclass
class RawSplits:
    """The splits of a recipe as they were read, and the one table of their labels."""

    train: AnyData
    validation: AnyData
    test: AnyData | None
    table: LabelTable
    rows: dict[str, np.ndarray]  # where the images of a split that was drawn lie in the one it was drawn from

    def by_name(self) -> dict[str, AnyData | None]:
        """Name -> split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def load_splits(data: DataRecipe) -> RawSplits:
    """The splits of a recipe: a validation split of its own, or a part held out of train; subsets drawn.

    Raises:
        ValueError: If a split is missing, two of them share rows, or the labels are none of the problem.
    """
    names = [name for name in (data.train_split, data.validation_split, data.test_split) if name is not None]
    _check_distinct(data)
    loaded = load_named_of(data, names)
    train, test = loaded[data.train_split], loaded[data.test_split] if data.test_split else None
    table = label_table(data, train)
    is_stream, rows = isinstance(train, IterableDataset), dict[str, np.ndarray]()
    if is_stream and (data.shots is not None or data.fraction is not None):
        raise ValueError("shots and fraction cannot be drawn from a stream.")
    if data.validation_split is not None:
        validation = loaded[data.validation_split]
    elif is_stream:
        raise ValueError("Nothing can be held out of a stream; name a validation_split.")
    else:
        kept, held = hold_out(_classes(data, train, table, "train"), data.validation_fraction, data.split_seed)
        train, validation = train.select(kept), train.select(held)
        rows = {"train": kept, "validation": held}
    if data.shots is not None or data.fraction is not None:
        options: dict[str, Any] = {"shots": data.shots, "fraction": data.fraction, "draw": data.draw}
        classes = _classes(data, train, table, "train")
        kept = low_shot(classes, **options, names=table.names)
        train, rows["train"] = train.select(kept), rows["train"][kept] if "train" in rows else kept
        if not data.full_validation and isinstance(validation, Dataset):
            classes = _classes(data, validation, table, "validation")
            kept = low_shot(classes, **options, at_most=True)
            validation = validation.select(kept)
            rows["validation"] = rows["validation"][kept] if "validation" in rows else kept
    return RawSplits(train, validation, test, table, rows)


def label_table(data: DataRecipe, train: AnyData) -> LabelTable:
    """The one label table of a run: from the training column, or from `data.labels` and `data.num_labels`.

    Raises:
        ValueError: If the column holds no labels of the problem, or a stream does not know its classes.
    """
    column = data.images.label_column
    if isinstance(train, Dataset):
        check_columns("train", train.column_names, data.images)
        labels = Labels.of(train, column)
        try:
            return make_table(labels, data.problem_type, data.labels, data.num_labels, data.images.label_separator)
        except ValueError as error:
            raise ValueError(f"The label column {column!r} of the train split: {error}") from error
    names = names_of((train.features or {}).get(column))
    if data.problem_type == "regression":
        return LabelTable.numbered(data.num_labels or 1)
    if data.labels is not None:
        return LabelTable(tuple(data.labels))
    if names is not None and data.num_labels in (None, len(names)):
        return LabelTable.of_names(names)
    if data.num_labels is None:
        raise ValueError("The stream does not know its classes; list their names as data.labels.")
    return LabelTable.numbered(data.num_labels)


def _classes(data: DataRecipe, dataset: Dataset, table: LabelTable, name: str) -> np.ndarray:
    """What is drawn evenly from: class ids, or the same for all rows where there are no classes."""
    if data.problem_type != "single_label_classification":
        return np.zeros(len(dataset), np.int64)
    encoder = LabelEncoder(table, data.problem_type)
    return encoder.column(Labels.of(dataset, data.images.label_column), name)


def _check_distinct(data: DataRecipe) -> None:
    named = {"training": data.train_split, "validation": data.validation_split, "test": data.test_split}
    roles = [(role, split) for role, split in named.items() if split is not None]
    for (role, split), (other, another) in combinations(roles, 2):
        is_marked = role == "validation" and split == another and data.allow_selection_on_test
        if same_rows(split, another) and not is_marked:
            raise ValueError(
                f"The {role} split {split!r} and the {other} split {another!r} share images; name splits that do not, "
                "set validation_split to null to hold a part of train out, or allow_selection_on_test to be marked."
            )


def load_named_of(data: DataRecipe, names: Sequence[str]) -> dict[str, AnyData]:
    """Splits of the recipe's dataset, by name."""
    return load_named(
        data.dataset,
        names,
        name=data.name,
        revision=data.revision,
        streaming=data.streaming,
        image_column=data.images.image_column,
        label_column=data.images.label_column,
    )


def open_splits(
    data: DataRecipe, sweep: ProbeSweep, raw: RawSplits, seed: int
) -> dict[str, ImageSplit | ImageStream | None]:
    """Check every split that there is and open it for reading; the training stream is shuffled.

    Raises:
        ValueError: If a column, label or image does not fit, or one split lies in another.
    """
    encoder = LabelEncoder.of_probe(sweep.config, data.images.label_separator)
    images = data.images
    if data.tokens == "cached" and images.check is None:
        images = replace(images, check=False)  # caching decodes them
    opened: dict[str, ImageSplit | ImageStream | None] = dict.fromkeys(raw.by_name())
    for name, dataset in raw.by_name().items():
        if dataset is not None:
            shuffle = (data.shuffle_buffer, seed) if name == "train" else None
            num_channels = sweep.backbone.num_channels
            options: dict[str, Any] = {"num_channels": num_channels, "shuffle": shuffle, "rows": raw.rows.get(name)}
            opened[name] = open_split(name, dataset, images, encoder, **options)
    named = [name for name in opened if name != "validation" or data.validation_split is not None]
    held = [split for name in named if isinstance(split := opened[name], ImageSplit)]
    known = [split for split in held if split.knows_content or data.tokens == "cached"]
    for one, other in combinations(known, 2):
        if not (data.allow_selection_on_test and {one.name, other.name} == {"validation", "test"}):
            check_apart(one, other)
    return opened


def cache_splits(
    data: DataRecipe,
    sweep: ProbeSweep,
    splits: Mapping[str, ImageSplit | ImageStream | None],
    readings: list[Reading],
    arguments: ProbeTrainingArguments,
    also: Mapping[Path, int],
) -> dict[str, TokenCache | None]:
    """The token cache of every split; only that of the training split holds augmented views.

    Args:
        data: The data block of the recipe.
        sweep: Heads and backbone.
        splits: Name -> images.
        readings: What is read of them.
        arguments: Training settings.
        also: Folder -> bytes that the run will write there beside.

    Raises:
        ValueError: If the backbone has no image processor, or the disk is too small.
    """
    if sweep.image_processor is None:
        raise ValueError("The backbone came without a usable image processor.")
    options: dict[str, Any] = {"seed": arguments.seed, "precision": arguments.mixed_precision}
    first: dict[str, TokenSource] = {}
    train, validation = splits["train"], splits["validation"]
    is_held_out = data.validation_split is None and data.augmentation is None
    if is_held_out and isinstance(train, ImageSplit) and isinstance(validation, ImageSplit):
        both = train.joined(validation)  # one cache, of which every other draw of what is held out is a part as well
        plain = replace(data.cache, views=1, keep="disk")
        first["both"] = token_source(sweep.backbone, both, readings, sweep.image_processor, plain, **options)
    sources: dict[str, TokenSource] = {}
    for name, split in splits.items():
        if isinstance(split, ImageSplit):  # streams were refused when the recipe was read
            is_train = name == "train"
            cache = data.cache if is_train else replace(data.cache, views=1)
            options["augmentation"] = data.augmentation if is_train else None
            sources[name] = token_source(sweep.backbone, split, readings, sweep.image_processor, cache, **options)
    new = [source for name, source in (sources | first).items() if not first or name not in ("train", "validation")]
    check_space({Path(data.cache.folder): sum(map(bytes_to_write, new)), **also})
    for source in first.values():
        open_cache(source, arguments.num_workers)
    return {name: open_cache(sources[name], arguments.num_workers) if name in sources else None for name in splits}


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
