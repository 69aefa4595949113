"""Labels of a dataset as targets of a probe: every split goes through the one table of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedConfig

from attentive_probes.data.label_columns import are_indicators, is_list, numbers, rows_of_length, rows_of_lists
from attentive_probes.probe.label_table import LabelTable

FLOAT_TARGETS = ("multi_label_classification", "regression")


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


class LabelEncoder:
    """Turns the raw labels of one problem into targets.

    Single label: class ids. Multi-label: rows of C zeros and ones, from such rows, from lists of names or ids, or from
    text with a separator. Regression: a number, or C numbers.

    Args:
        table: The label table of the run.
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        separator: What stands between the labels of one image where they are text.
    """

    def __init__(self, table: LabelTable, problem_type: str, separator: str | None = None):
        self.table, self.num_labels = table, len(table.names)
        self.problem_type, self.separator = problem_type, separator

    @classmethod
    def of_probe(cls, config: PreTrainedConfig, separator: str | None = None) -> LabelEncoder:
        """The encoder of a probe."""
        return cls(LabelTable.from_config(config), config.problem_type, separator)

    def column(self, labels: Labels, split: str) -> np.ndarray:
        """Targets of a whole column: `(N,)` class ids, or `(N,)` or `(N, C)` floats.

        Raises:
            ValueError: If one is no valid target; the text names its row.
        """
        if self.problem_type in FLOAT_TARGETS:
            indicators = labels.names is None and are_indicators(labels.array, self.num_labels)
            if (whole := self._whole(labels, indicators)) is not None:
                return whole
            encode = self.reader(labels.names, indicators)
            rows = [encode(label, f"in row {i} of the {split} split") for i, label in enumerate(labels.values())]
            shape = (0,) if self.problem_type == "regression" and self.num_labels == 1 else (0, self.num_labels)
            return np.stack(rows) if rows else np.zeros(shape, np.float32)
        raw, places = labels.distinct()
        encode = self.reader(labels.names)
        ids = []
        for i, label in enumerate(raw):
            try:
                ids.append(encode(label, ""))
            except ValueError:
                encode(label, f"in row {int(np.argmax(places == i))} of the {split} split")
        return np.asarray(ids, np.int64)[places] if len(places) else np.zeros(0, np.int64)

    def _whole(self, labels: Labels, indicators: bool) -> np.ndarray | None:
        """Targets of a whole column at once; `None` where rows must be looked at one by one."""
        array = labels.array
        if self.problem_type == "regression":
            return numbers(array, self.num_labels)
        if indicators:
            return rows_of_length(array, self.num_labels)
        try:
            if is_list(array):
                return rows_of_lists(array, self.num_labels, lambda label: self._id(label, labels.names))
            if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
                texts, places = labels.distinct()
                return np.stack([self._row(text, labels.names, False) for text in texts])[places]
        except ValueError:
            pass  # the look at every row says which one
        return None

    def reader(self, names: Sequence[str] | None = None, indicators: bool | None = None) -> Callable[[Any, str], Any]:
        """A function that makes targets of single raw labels, and says where a wrong one was.

        Args:
            names: Names behind the ids of a `ClassLabel` column, in its order.
            indicators: Whether rows are zeros and ones; `None` decides row by row, and takes what could be both for
                zeros and ones, unless there are names.

        Raises:
            ValueError: By the function, if a label is no valid target.
        """
        indicators = names is None if indicators is None else indicators

        def _target(label: Any, where: str) -> Any:
            try:
                if self.problem_type == "regression":
                    return self._numbers(label)
                if self.problem_type == "multi_label_classification":
                    return self._row(label, names, indicators)
                return self._id(label, names)
            except ValueError as error:
                shown = _short(label if self.table.is_generic else named(label, names))
                raise ValueError(f"The label {shown} {where}: {error}" if where else str(error)) from error

        return _target

    def batch(self, targets: list[Any]) -> Tensor:
        """Targets of a batch: `(B,)` class ids, or `(B,)` or `(B, C)` floats."""
        if targets:
            return torch.as_tensor(np.stack([np.asarray(target) for target in targets]))
        if self.problem_type not in FLOAT_TARGETS:
            return torch.empty(0, dtype=torch.long)
        shape = () if self.problem_type == "regression" and self.num_labels == 1 else (self.num_labels,)
        return torch.empty(0, *shape)

    def _id(self, label: Any, names: Sequence[str] | None) -> int:
        label = named(label, names) if not (self.table.is_generic and names) else label
        if label is None or label != label:
            raise ValueError("it is empty; leave the image out, or give it a class.")
        found = self.table.id_of(label)
        if found is None:
            raise ValueError(self.table.unknown(label))
        return found

    def _row(self, label: Any, names: Sequence[str] | None, indicators: bool) -> np.ndarray:
        if isinstance(label, str):
            if self.separator is None:
                raise ValueError("it is text; say what stands between the labels (label_separator).")
            label = [part.strip() for part in label.split(self.separator) if part.strip()]
        if not isinstance(label, list | tuple | np.ndarray):
            raise ValueError(f"it is no row of {self.num_labels} zeros and ones, and no list of names or ids.")
        if indicators and len(label) == self.num_labels and is_indicator(label):
            return np.asarray(label, np.float32)
        if any(isinstance(one, float) for one in label) or len(set(label)) < len(label):
            raise ValueError(f"it is no row of {self.num_labels} zeros and ones, and no list of names or ids.")
        row = np.zeros(self.num_labels, np.float32)
        for one in label:
            row[self._id(one, names)] = 1
        return row

    def _numbers(self, label: Any) -> np.ndarray:
        shape = () if self.num_labels == 1 else (self.num_labels,)
        try:
            values = np.asarray(label, np.float32)
        except (TypeError, ValueError):
            values = np.asarray(np.nan, np.float32)
        if values.shape == (1,) and shape == ():
            values = values[0]
        if np.shape(values) != shape or not np.isfinite(values).all():
            expected = "a finite number" if shape == () else f"a row of {self.num_labels} finite numbers"
            raise ValueError(f"it is not {expected}.")
        return np.asarray(values, np.float32)


def named(label: Any, names: Sequence[str] | None) -> Any:
    """The name behind an id of a `ClassLabel` column; other labels as they are. -1 is what `datasets` puts for none."""
    if names is None or not isinstance(label, int):
        return label
    return names[label] if 0 <= label < len(names) else None


def is_indicator(row: Iterable[Any]) -> bool:
    """Whether a row holds zeros and ones alone."""
    return all(isinstance(value, int | float | np.number) and value in (0, 1) for value in row)


def names_of(feature: Any) -> tuple[str, ...] | None:
    """Names behind the ids of a label column, also of lists of labels, if it has names."""
    while isinstance(feature, datasets.Sequence | datasets.List | datasets.LargeList):
        feature = feature.feature
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _short(label: Any) -> str:
    text = repr(label)
    return text if len(text) < 60 else f"{text[:57]}..."
