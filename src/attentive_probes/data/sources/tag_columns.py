"""Several columns of zeros and ones, one per tag, as one column of lists of tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List

from attentive_probes.checks import unknown_name

FEWEST = 2


def with_label_column(dataset: Any, label_column: str) -> Any:
    """The data with the columns that `a,b,c` names joined to one, whose rows list the tags that are 1.

    Data that have such a column stay as they are, and so do those for which a single column is named.

    Raises:
        ValueError: If one of several columns is not there, or holds anything but zeros and ones; or of a stream.
    """
    columns = [name.strip() for name in label_column.split(",")]
    if len(columns) < FEWEST or label_column in (dataset.column_names or ()):
        return dataset
    if not isinstance(dataset, Dataset):
        raise ValueError("several columns of labels are not read from a stream; set streaming to false.")
    for column in columns:
        if column not in dataset.column_names:
            raise ValueError(unknown_name("column, of several in label_column:", column, dataset.column_names))
        if not is_flag(dataset, column):
            raise ValueError(f"the column {column!r} holds more than zeros and ones, so that it is no column of a tag.")
    flags = np.stack([np.asarray(dataset.with_format(None)[column][:], float) for column in columns], 1)
    tags = [np.flatnonzero(row).tolist() for row in flags]
    return dataset.add_column(label_column, tags, feature=List(ClassLabel(names=columns)))


def flag_columns(dataset: Dataset, others: Sequence[str] = ()) -> list[str]:
    """Columns of zeros and ones, of which neither is all there is."""
    names = (name for name in dataset.column_names if name not in others)
    return [name for name in names if is_flag(dataset, name) and len(set(dataset[name])) > 1]


def is_flag(dataset: Dataset, column: str) -> bool:
    """Whether a column holds zeros and ones, or truth values, and nothing else."""
    feature = dataset.features[column]
    if getattr(feature, "dtype", "") not in ("bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64"):
        return False
    return not isinstance(feature, ClassLabel) and set(dataset[column]) <= {0, 1}
