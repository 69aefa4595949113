"""From the data block of a recipe to its splits: named ones, parts that are held out by class and group, subsets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset

from attentive_probes.checks import unknown_name
from attentive_probes.data.images import check_columns, encoded_images
from attentive_probes.data.labels import LabelEncoder, make_table
from attentive_probes.data.load import AnyData, load_named, same_rows
from attentive_probes.data.pixels.content_hashes import find_content
from attentive_probes.data.pixels.decode import brightest_of_16_bits
from attentive_probes.data.splitting.groups import (
    apart_in,
    check_groups_apart,
    counted,
    group_name,
    groups_of,
    num_without_group,
    with_copies,
)
from attentive_probes.data.splitting.hold_out import hold_out, low_shot
from attentive_probes.data.splitting.split_parts import Part, RawSplits
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.experiments.steps.split_files import kept_of, read_keep
from attentive_probes.problems.label_checks import look_alikes, unlabelled_rows
from attentive_probes.problems.label_columns import Labels, names_of
from attentive_probes.problems.label_table import LabelTable

logger = logging.getLogger(__name__)
SAMPLE = 32  # images that are looked at for their range


def load_splits(data: DataRecipe) -> RawSplits:
    """The splits of a recipe: named ones, or parts held out of train by class and group; subsets drawn.

    Raises:
        ValueError: If a split is missing, two of them share rows or groups, or the labels do not fit the problem.
    """
    named = {"train": data.train_split, "validation": data.validation_split, "test": data.test_split}
    _check_distinct(data, named)
    loaded = load_named_of(data, [name for name in named.values() if name is not None])
    warnings: list[str] = []
    parts = {role: _part(data, role, loaded[name], warnings) for role, name in named.items() if name is not None}
    table = label_table(data, parts["train"].data)
    warnings += look_alike_classes(table.names)
    warnings += dark_images(data, parts["train"].data)
    check_groups_apart({role: part.groups for role, part in parts.items() if part.groups is not None})
    is_cut = data.validation_split is None or (data.test_split is None and data.test_fraction is not None)
    if is_cut or data.tokens == "cached" or data.keep is not None:
        parts = _with_copies(data, parts)
    for role, fraction in (("test", data.test_fraction), ("validation", data.validation_fraction)):
        if role not in parts and fraction is not None:
            parts["train"], parts[role] = _hold_out(data, parts["train"], table, role, fraction)
    if data.keep is not None:
        listed = read_keep(Path(data.keep))
        parts = {role: kept_of(role, part, listed, data.keep) for role, part in parts.items()}
    if data.shots is not None or data.fraction is not None:
        _keep_few(data, parts, table)
    return RawSplits(parts, table, tuple(warnings))


def _part(data: DataRecipe, role: str, split: AnyData, warnings: list[str]) -> Part:
    if not isinstance(split, Dataset):
        if data.group_column is not None or data.group_pattern is not None or data.fold_column is not None:
            raise ValueError("Groups and folds are known of what is read as a whole; leave them out of a stream.")
        return Part(split)
    groups = groups_of(split, data.images.image_column, data.group_column, data.group_pattern)
    if groups is not None and (count := num_without_group(groups)):
        warnings.append(f"{count} of {len(groups)} {role} images name no group; each is a group of its own.")
        groups = apart_in(role, groups)
    folds = None
    if data.fold_column is not None and role != "test":
        if data.fold_column not in split.column_names:
            raise ValueError(unknown_name("column, set data.fold_column:", data.fold_column, split.column_names))
        folds = np.array([group_name(value) or "" for value in split[data.fold_column]])
    return _labelled(data, role, Part(split, None, groups, None, folds), warnings)


def _labelled(data: DataRecipe, role: str, part: Part, warnings: list[str]) -> Part:
    """The part without images that have no label, where these are to be left out."""
    column = data.images.label_column
    if column not in part.data.column_names:
        return part  # which is said where the columns are checked
    missing = unlabelled_rows(Labels.of(part.data, column))
    if not len(missing):
        return part
    count = f"{len(missing):,} of {len(part.data):,} {role} images have no label"
    if data.images.unlabelled == "raise":
        raise ValueError(
            f"{count} in the column {column!r}, the first in row {missing[0]}; label them, or leave them out "
            "(data.images.unlabelled=skip)."
        )
    if len(missing) == len(part.data):
        raise ValueError(f"None of the {role} images has a label in the column {column!r}.")
    warnings.append(f"{count} and were left out.")
    return part.select(np.setdiff1d(np.arange(len(part.data)), missing))


def look_alike_classes(names: Sequence[str]) -> list[str]:
    """A warning for every set of classes that only spaces, case or the form of letters tell apart."""
    return [
        f"The classes {', '.join(map(repr, alike))} differ by spaces, case or forms of letters alone; they may be one."
        for alike in look_alikes(names)
    ]


def dark_images(data: DataRecipe, train: AnyData) -> list[str]:
    """A warning where images of 16 bits use a part of their range, as scanners of 10 to 14 bits write them."""
    if not isinstance(train, Dataset) or data.images.image_column not in train.column_names or not len(train):
        return []
    images = encoded_images(train.with_format(None), data.images, "train")
    places = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int)).tolist()
    found = [brightest_of_16_bits(images[place][data.images.image_column]) for place in places]
    wide = [value for value in found if value is not None]
    if not wide or max(wide) >= 2**16 / 4:
        return []
    bits = max(wide).bit_length()
    return [
        f"Images of 16 bits use values up to {max(wide):,} of 65,535, as files of {bits} bits do: they are read as "
        f"nearly black. Multiply them by {2 ** (16 - bits)}, for training and for use alike."
    ]


def _with_copies(data: DataRecipe, parts: Mapping[str, Part]) -> dict[str, Part]:
    """The parts with the content of their images, of which copies are a group, also across the splits."""
    if not all(isinstance(part.data, Dataset) for part in parts.values()):
        return dict(parts)
    found = {}
    for role, part in parts.items():
        check_columns(role, part.data.column_names, data.images)
        images = encoded_images(part.data.with_format(None), data.images, role)
        found[role] = replace(part, content=find_content(images, data.images.image_column, None, role).digests)
    known = [part.groups for part in parts.values() if part.groups is not None]
    named = np.concatenate(known) if len(known) == len(parts) else None
    together = with_copies(named, np.concatenate([part.copies() for part in found.values()]))
    if together is None:
        return found
    ends = np.cumsum([len(part.data) for part in found.values()])[:-1]
    pieces = dict(zip(found, np.split(together, ends), strict=True))
    return {role: replace(part, groups=pieces[role]) for role, part in found.items()}


def _hold_out(data: DataRecipe, train: Part, table: LabelTable, role: str, fraction: float) -> tuple[Part, Part]:
    """What stays of a training split, and what is held out of it for another role."""
    if isinstance(train.data, IterableDataset):
        raise ValueError(f"Nothing can be held out of a stream; name a data.{role}_split.")
    classes = _classes(data, train.data, table, "train")
    units = train.copies() if train.groups is None else train.groups
    try:
        kept, held = hold_out(classes, units, fraction, data.split_seed, role)
    except ValueError:
        if data.group_column is not None or data.group_pattern is not None:
            raise
        alone = np.char.add(np.char.add(train.copies(), " "), counted(train.copies()).astype(str))
        kept, held = hold_out(classes, alone, fraction, data.split_seed, role)
        logger.warning("Every class is one image and its copies, so copies are in training and in %s.", role)
        train = replace(train, groups=None)
    return train.select(kept), train.select(held)


def _keep_few(data: DataRecipe, parts: dict[str, Part], table: LabelTable) -> None:
    """Keep a low-shot subset of training and, unless it is to stay whole, of validation."""
    if isinstance(parts["train"].data, IterableDataset):
        raise ValueError("shots and fraction cannot be drawn from a stream.")
    options: dict[str, Any] = {"shots": data.shots, "fraction": data.fraction, "draw": data.draw}
    for role, others in (("train", {"names": table.names}), ("validation", {"at_most": True})):
        split = parts[role].data
        if role == "train" or (not data.full_validation and isinstance(split, Dataset)):
            parts[role] = parts[role].select(low_shot(_classes(data, split, table, role), **options, **others))


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
    return data.problem.table_without_rows(names, data.labels, data.num_labels)


def _classes(data: DataRecipe, dataset: Dataset, table: LabelTable, name: str) -> np.ndarray:
    """What is drawn evenly from: class ids, or the same for all rows where there are no classes."""
    if not data.problem.has_one_class:
        return np.zeros(len(dataset), np.int64)
    encoder = LabelEncoder(table, data.problem_type)
    return encoder.column(Labels.of(dataset, data.images.label_column), name)


def _check_distinct(data: DataRecipe, named: Mapping[str, str | None]) -> None:
    roles = [("training" if role == "train" else role, split) for role, split in named.items() if split is not None]
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
        split_column=data.split_column,
        class_level=data.class_level,
    )
