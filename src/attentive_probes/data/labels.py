"""Labels of a dataset as targets of a probe: checked, aligned by name, encoded for the loss."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedConfig

FLOAT_TARGETS = ("multi_label_classification", "regression")


class LabelEncoder:
    """Turns the labels of one problem into targets.

    Single label: class ids in `[0, C)`. Multi-label: rows of C zeros and ones. Regression: a number, or C numbers.

    Args:
        config: Configuration of the probe: names and number of labels, and the problem type.
    """

    def __init__(self, config: PreTrainedConfig):
        self.num_labels = int(config.num_labels or 0)
        self.label2id = dict(config.label2id or {})
        self.problem_type = config.problem_type

    def align(self, dataset: Dataset, column: str, split: str) -> Dataset:
        """Give the classes of a dataset the ids they have in the probe, by name.

        Raises:
            ValueError: If the dataset has a class that the probe does not know, or names where the probe has none.
        """
        if self.problem_type in FLOAT_TARGETS:
            return dataset
        generic = set(self.label2id) == {f"LABEL_{i}" for i in range(self.num_labels)}
        feature = dataset.features[column]
        if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
            if generic:
                raise ValueError(f"The column {column!r} holds names; give the probe their list with labels=[...].")
            dataset = dataset.class_encode_column(column)
            feature = dataset.features[column]
        if generic or not isinstance(feature, datasets.ClassLabel):
            return dataset
        if unknown := [name for name in feature.names if name not in self.label2id]:
            raise ValueError(
                f"The {split} split has classes that the probe does not know: {unknown[:5]}; "
                f"it knows {list(self.label2id)[:10]}."
            )
        if all(self.label2id[name] == i for i, name in enumerate(feature.names)):
            return dataset
        return dataset.align_labels_with_mapping(self.label2id, column)

    def check(self, dataset: Dataset, column: str, split: str) -> None:
        """Check all labels of a dataset at once.

        Raises:
            ValueError: If one is no valid target; the text names its row.
        """
        values = dataset.with_format("numpy")[column][:]
        if self.problem_type in FLOAT_TARGETS or np.asarray(values).dtype.kind not in "iu":
            for row, value in enumerate(values):
                self.checked(value, f"in row {row} of the {split} split")
            return
        wrong = np.flatnonzero((values < 0) | (values >= self.num_labels))
        if len(wrong):
            self.checked(values[wrong[0]], f"in row {wrong[0]} of the {split} split")

    def checked(self, label: Any, where: str) -> Any:
        """The target of one label.

        Raises:
            ValueError: If it is no valid target; the text says `where`.
        """
        try:
            values = np.asarray(label, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.asarray(np.nan)
        if self.problem_type not in FLOAT_TARGETS:
            valid = values.ndim == 0 and values == np.floor(values) and 0 <= values < self.num_labels
            expected = f"a class id from 0 to {self.num_labels - 1}"
        elif self.problem_type == "regression":
            shape = () if self.num_labels == 1 else (self.num_labels,)
            valid, expected = values.shape == shape and bool(np.isfinite(values).all()), f"numbers of shape {shape}"
        else:
            valid = values.shape == (self.num_labels,) and bool(np.isin(values, (0, 1)).all())
            expected = f"a row of {self.num_labels} zeros and ones"
        if not valid:
            raise ValueError(f"The label {label!r} {where} is not {expected}.")
        return self.encode(label)

    def encode(self, label: Any) -> Any:
        """The target of a label that was checked."""
        return np.asarray(label, dtype=np.float32) if self.problem_type in FLOAT_TARGETS else int(label)

    def batch(self, targets: list[Any]) -> Tensor:
        """Targets of a batch: `(B,)` class ids, or `(B,)` or `(B, C)` floats."""
        return torch.as_tensor(np.stack([np.asarray(target) for target in targets]))


def class_names(dataset: Dataset, column: str) -> list[str]:
    """Names of the classes in a label column: those of a `ClassLabel`, or the distinct strings in it, sorted.

    Raises:
        ValueError: If the column holds neither.
    """
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return sorted(map(str, dataset.unique(column)))
    raise ValueError(f"The column {column!r} holds {feature} and names no classes; list them as data.labels.")
