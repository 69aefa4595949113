"""Labels of a dataset as targets of a probe: every split goes through the one table of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedConfig

from attentive_probes.problems import find_problem
from attentive_probes.problems.class_labels import named
from attentive_probes.problems.label_columns import Labels, names_of
from attentive_probes.problems.label_table import LabelTable


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
        self.problem, self.separator = find_problem(problem_type), separator

    @classmethod
    def of_probe(cls, config: PreTrainedConfig, separator: str | None = None) -> LabelEncoder:
        """The encoder of a probe."""
        return cls(LabelTable.from_config(config), config.problem_type, separator)

    def column(self, labels: Labels, split: str) -> np.ndarray:
        """Targets of a whole column: `(N,)` class ids, or `(N,)` or `(N, C)` floats.

        Raises:
            ValueError: If one is no valid target; the text names its row.
        """
        whole = self.problem.targets(labels, self.table, self.separator)
        if whole is not None:
            return whole
        encode = self.reader(labels.names, labels.are_indicators(self.num_labels))
        rows = [encode(label, f"in row {i} of the {split} split") for i, label in enumerate(labels.values())]
        return np.stack(rows) if rows else self.problem.empty(self.num_labels).numpy()

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
                return self.problem.target(label, self.table, names, indicators, self.separator)
            except ValueError as error:
                shown = _short(label if self.table.is_generic else named(label, names))
                raise ValueError(f"The label {shown} {where}: {error}" if where else str(error)) from error

        return _target

    def batch(self, targets: list[Any]) -> Tensor:
        """Targets of a batch: `(B,)` class ids, or `(B,)` or `(B, C)` floats."""
        if not targets:
            return self.problem.empty(self.num_labels)
        return torch.as_tensor(np.stack([np.asarray(target) for target in targets]))


def make_table(
    labels: Labels,
    problem_type: str,
    names: Sequence[str] | None = None,
    num_labels: int | None = None,
    separator: str | None = None,
) -> LabelTable:
    """The label table of a run, from its training column.

    Given names or a number of classes, integers are ids. Else the names are those of the column, or its distinct labels
    in order: numbers by their size, names by the alphabet.

    Args:
        labels: The training column.
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        names: Names of the classes in order of their ids.
        num_labels: Number of classes or targets.
        separator: What stands between the labels of one image where they are text.

    Raises:
        ValueError: If the column cannot be that of the problem, or contradicts names or number.
    """
    if names is not None and num_labels not in (None, len(names)):
        raise ValueError(f"num_labels={num_labels} contradicts the {len(names)} names in labels.")
    return find_problem(problem_type).table(labels, names, num_labels, separator)


def adopt_names(config: PreTrainedConfig, dataset: Any, column: str) -> None:
    """Give a probe without names those that its training column has, if there are as many; other probes stay.

    Args:
        config: Configuration of the probe.
        dataset: The training split, as `datasets` holds it.
        column: Its label column.
    """
    table = LabelTable.from_config(config)
    if not table.is_generic or not config.problem.has_one_class:
        return
    names = names_of((getattr(dataset, "features", None) or {}).get(column))
    if names is None and isinstance(dataset, Dataset) and column in dataset.column_names:
        found = [label for label in Labels.of(dataset, column).distinct()[0] if label is not None]
        names = tuple(sorted(found)) if all(isinstance(label, str) for label in found) else None
    if names is not None and len(names) == len(table.names):
        for key, value in LabelTable.of_names(names).to_config().items():
            setattr(config, key, value)


def _short(label: Any) -> str:
    text = repr(label)
    return text if len(text) < 60 else f"{text[:57]}..."
