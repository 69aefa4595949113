"""Splits and folds that a column of the data says, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from attentive_probes.checks import unknown_name
from attentive_probes.data.sources.find import CANONICAL

NAMES = ("split", "splits", "set", "subset", "partition", "phase", "usage", "data_split", "dataset_split", "fold_type")
FLAGS = {"is_valid": "validation", "is_validation": "validation", "is_val": "validation", "is_test": "test"}
FOLDS = ("fold", "folds", "kfold", "cv_fold", "fold_id")
WORDS = {**CANONICAL, "publictest": "validation", "privatetest": "test", "public": "validation", "private": "test"}
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")
MOST_FOLDS = 20


def find_split_column(dataset: Dataset, others: Sequence[str] = ()) -> str | None:
    """The column whose values all name splits, training among them; `None` if there is none.

    Args:
        dataset: All rows.
        others: Columns that are something else, such as that of labels.
    """
    for column in _candidates(dataset, (*NAMES, *FLAGS), others):
        found = set(split_names_in(dataset, column).tolist())
        if "train" in found and len(found) > 1 and found <= {"train", "validation", "test"}:
            return column
    return None


def find_fold_column(dataset: Dataset, others: Sequence[str] = ()) -> str | None:
    """The column that numbers the folds of a cross-validation, 2 to 20 of them; `None` if there is none."""
    for column in _candidates(dataset, FOLDS, others):
        values = set(_texts(dataset, column).tolist())
        if 2 <= len(values) <= MOST_FOLDS and all(value.removesuffix(".0").lstrip("-").isdecimal() for value in values):
            return column
    return None


def split_names_in(dataset: Dataset, column: str) -> np.ndarray:
    """The name of the split `(N,)` of each row: train, validation, test, or what stands there.

    Raises:
        ValueError: If there is no such column.
    """
    if column not in dataset.column_names:
        raise ValueError(unknown_name("column, set data.split_column:", column, dataset.column_names))
    texts = _texts(dataset, column)
    flag = FLAGS.get(column.casefold())
    if flag is not None and all(text.casefold() in (*TRUE, *FALSE) for text in texts):
        return np.array([flag if text.casefold() in TRUE else "train" for text in texts], object)
    return np.array([WORDS.get(text.strip().casefold(), text) for text in texts], object)


def _candidates(dataset: Dataset, names: Sequence[str], others: Sequence[str]) -> list[str]:
    columns = {name.strip().casefold(): name for name in dataset.column_names if name not in others}
    return [columns[name] for name in names if name in columns]


def _texts(dataset: Dataset, column: str) -> np.ndarray:
    """What stands in a column, as text; names for the ids of a `ClassLabel`, nothing for what is missing."""
    values: list[Any] = list(dataset.select_columns([column])[column])
    names = getattr(dataset.features[column], "names", None)
    texts = [names[value] if names and isinstance(value, int) and value >= 0 else value for value in values]
    return np.array(["" if text is None or text != text else str(text) for text in texts], object)
