"""What a run took its data for, in one line: labels, splits and groups; so that a wrong guess is seen in time."""

from __future__ import annotations

from collections import Counter

import numpy as np
from datasets import Dataset

from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.problems.label_columns import Labels

MAX_NAMES = 10  # of classes that are listed


def taken_for(raw: RawSplits, data: DataRecipe) -> str:
    """For instance `labels: 2 classes (cat 40, dog 38) in column label; splits: train 70, validation 8`.

    Args:
        raw: The splits as they were read.
        data: The data block of the recipe.
    """
    parts = [f"labels: {_labels(raw, data)} in column {data.images.label_column}", f"splits: {_splits(raw, data)}"]
    if data.fold_column is not None:
        parts.append(f"folds: column {data.fold_column}")
    if (asked := data.group_column or data.group_pattern) is not None:
        names = [part.groups for part in raw.parts.values() if part.groups is not None]
        count = len(np.unique(np.concatenate(names))) if names else 0
        parts.append(f"groups: {count:,} by {'column' if data.group_column else 'pattern'} {asked}")
    return "; ".join(parts)


def _labels(raw: RawSplits, data: DataRecipe) -> str:
    train, names = raw.parts["train"].data, raw.table.names
    if not data.problem.has_classes:
        if not isinstance(train, Dataset):
            return "numbers, a regression"
        targets = LabelEncoder(raw.table, data.problem_type).column(Labels.of(train, data.images.label_column), "train")
        values = np.asarray(targets, float)
        return f"numbers from {values.min():g} to {values.max():g}, a regression"
    what = "classes" if data.problem.has_one_class else "tags, several an image"
    if raw.table.is_generic:
        return f"{len(names):,} {what}, by their ids"
    counts = _counts(raw, data)
    shown = [f"{name} {counts[name]:,}" if counts else name for name in names[:MAX_NAMES]]
    more = f", and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"{len(names):,} {what} ({', '.join(shown)}{more})"


def _counts(raw: RawSplits, data: DataRecipe) -> Counter[str]:
    """Name of each class -> its images in all splits; empty where that takes a look at every row."""
    counts: Counter[str] = Counter()
    if not data.problem.has_one_class:
        return counts
    for part in raw.parts.values():
        if not isinstance(part.data, Dataset):
            return Counter()
        labels = Labels.of(part.data, data.images.label_column)
        found, places = labels.distinct()
        for label, count in zip(found, np.bincount(places, minlength=len(found)).tolist(), strict=True):
            if labels.names is not None and isinstance(label, int):
                label = labels.names[label]
            place = raw.table.id_of(label)
            if place is not None:
                counts[raw.table.names[place]] += count
    return counts


def _splits(raw: RawSplits, data: DataRecipe) -> str:
    sizes = [
        f"{role} {len(part.data):,}" if isinstance(part.data, Dataset) else f"{role} a stream"
        for role, part in raw.parts.items()
    ]
    named = {"train": data.train_split, "validation": data.validation_split, "test": data.test_split}
    drawn = [role for role in raw.parts if named[role] is None]
    by_column = f" (column {data.split_column})" if data.split_column is not None else ""
    held = f" ({' and '.join(drawn)} held out)" if drawn else ""
    return f"{', '.join(sizes)}{by_column}{held}"
