"""Whole label columns as arrays: the targets that a look at every row gives, many times faster.

Each function answers `None` where only that look can tell what is right, or which row is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_list(array: pa.Array) -> bool:
    """Whether rows are lists of single values."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(kind(array.type) for kind in kinds) and not pa.types.is_nested(array.type.value_type)


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is one of numbers, truth values among them."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def rows_of_length(array: pa.Array, length: int) -> np.ndarray | None:
    """Lists of `length` numbers each, as `(N, length)` floats."""
    if not is_list(array) or not is_number(array.type.value_type) or array.null_count:
        return None
    flat = array.flatten()
    if flat.null_count or not pc.all(pc.equal(pc.list_value_length(array), length)).as_py():
        return None
    return _floats(flat).reshape(len(array), length)


def numbers(array: pa.Array, width: int) -> np.ndarray | None:
    """Targets of a regression, all finite: `(N,)` floats, or `(N, width)`."""
    if width > 1 or is_list(array):
        found = rows_of_length(array, width)
        found = found if found is None or width > 1 else found[:, 0]
    else:
        found = _floats(array) if is_number(array.type) and not array.null_count else None
    return found if found is not None and np.isfinite(found).all() else None


def are_indicators(array: pa.Array, width: int) -> bool:
    """Whether all rows that there are hold `width` zeros and ones."""
    if not is_list(array) or not is_number(array.type.value_type):
        return False
    flat = array.flatten()
    lengths = pc.unique(pc.list_value_length(array).drop_null()).to_pylist()
    return lengths == [width] and flat.null_count == 0 and set(flat.unique().to_pylist()) <= {0, 1}


def rows_of_lists(array: pa.Array, width: int, id_of: Callable[[Any], int]) -> np.ndarray | None:
    """Lists of ids or names as `(N, width)` zeros and ones.

    Args:
        array: The column.
        width: Number of classes.
        id_of: The class of a single label.

    Raises:
        ValueError: By `id_of`.
    """
    if not is_list(array) or array.null_count or pa.types.is_floating(array.type.value_type):
        return None
    flat = array.flatten().dictionary_encode()
    if flat.null_count:
        return None
    ids = np.asarray([id_of(label) for label in flat.dictionary.to_pylist()], np.int64)
    columns = ids[flat.indices.to_numpy(zero_copy_only=False)]
    rows = np.repeat(np.arange(len(array)), pc.list_value_length(array).to_numpy(zero_copy_only=False))
    found = np.zeros((len(array), width), np.float32)
    found[rows, columns] = 1
    return found if found.sum(dtype=np.float64) == len(columns) else None  # else a row names a class twice


def _floats(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).astype(np.float32)
