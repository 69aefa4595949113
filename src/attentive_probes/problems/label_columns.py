"""Label columns as they are stored, and whole columns as arrays of targets.

Functions on whole columns give the targets that a look at every row gives, many times faster; each answers `None` where
only that look can tell which row is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset


class Labels(NamedTuple):
    """A label column as it is stored, and the names behind its ids where it is a `ClassLabel`."""

    array: pa.Array
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, dataset: Dataset, column: str) -> Labels:
        """The label column of a dataset, whatever its format shows; no image is touched.

        Raises:
            ValueError: If it is no column of labels.
        """
        feature = dataset.features[column]
        stored = dataset.with_format("arrow", columns=[column])[:][column]
        chunks = stored.chunks if isinstance(stored, pa.ChunkedArray) else [stored]
        array = pa.concat_arrays(chunks) if chunks else pa.array([], stored.type)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_struct(array.type) or (pa.types.is_binary(array.type) and not pa.types.is_string(array.type)):
            raise ValueError(f"The column {column!r} holds {feature}, no labels; name another label_column.")
        return cls(array, names_of(feature))

    @property
    def are_floats(self) -> bool:
        """Whether the labels are stored as floating-point numbers."""
        return pa.types.is_floating(self.array.type)

    @property
    def are_texts(self) -> bool:
        """Whether the labels are texts."""
        return pa.types.is_string(self.array.type) or pa.types.is_large_string(self.array.type)

    @property
    def are_lists(self) -> bool:
        """Whether each row holds a list of single labels."""
        return is_list(self.array)

    def are_indicators(self, width: int) -> bool:
        """Whether all rows that there are hold `width` zeros and ones, and no names say otherwise."""
        return self.names is None and are_indicators(self.array, width)

    def values(self) -> Iterator[Any]:
        """Each label as a Python value."""
        return (label.as_py() for label in self.array)

    def distinct(self) -> tuple[list[Any], np.ndarray]:
        """Distinct labels as they are stored, ids also where there are names, and for each row which of them it has.

        Raises:
            ValueError: If rows hold lists.
        """
        if pa.types.is_null(self.array.type):
            return [None], np.zeros(len(self.array), np.int64)
        if pa.types.is_nested(self.array.type):
            raise ValueError("The labels are lists; set problem_type to multi_label_classification or regression.")
        encoded = self.array.dictionary_encode(null_encoding="encode")
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)


def names_of(feature: Any) -> tuple[str, ...] | None:
    """Names behind the ids of a label column, also of lists of labels, if it has names."""
    while isinstance(feature, datasets.Sequence | datasets.List | datasets.LargeList):
        feature = feature.feature
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


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


def labels_of_rows(labels: Labels, separator: str | None) -> list[Any]:
    """The distinct labels of a column of several labels per image.

    Raises:
        ValueError: If rows are texts without a separator, or single labels.
    """
    array = labels.array
    if labels.are_texts:
        if separator is None:
            raise ValueError("The labels are text; say what stands between the labels of an image (label_separator).")
        texts = [text for text in labels.distinct()[0] if text is not None]
        return list({part.strip() for text in texts for part in text.split(separator) if part.strip()})
    if not is_list(array):
        raise ValueError("The labels are single ones, not several; set problem_type to single_label_classification.")
    lengths = pc.unique(pc.list_value_length(array).drop_null()).to_pylist()
    if len(lengths) == 1 and lengths[0] > 1 and are_indicators(array, lengths[0]):
        return list(range(lengths[0]))
    return array.flatten().unique().drop_null().to_pylist()
