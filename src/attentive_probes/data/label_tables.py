"""The label table of a run, made once from its training column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedConfig

from attentive_probes.data.label_columns import are_indicators, is_list
from attentive_probes.data.labels import Labels, names_of
from attentive_probes.probe.label_table import LabelTable


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
    if problem_type == "regression":
        first = next((label for label in labels.values() if label is not None), 0.0)
        width = len(first) if isinstance(first, list) else 1
        return LabelTable(tuple(names)) if names is not None else LabelTable.numbered(num_labels or width)
    if names is not None:
        return LabelTable(tuple(names))
    if labels.names is not None and num_labels in (None, len(labels.names)):
        return _more_than_one(LabelTable.of_names(labels.names))
    if problem_type == "multi_label_classification":
        found = _labels_of_rows(labels, separator)
    else:
        found = [label for label in labels.distinct()[0] if label is not None and label == label]
    if labels.names is not None:
        raise ValueError(f"num_labels is {num_labels}, but the label column names {len(labels.names)} classes.")
    if found and all(isinstance(label, str) for label in found):
        if num_labels not in (None, len(found)):
            raise ValueError(f"num_labels is {num_labels}, but the training split holds {len(found)} names.")
        return _more_than_one(LabelTable.of_values(found))
    return LabelTable.numbered(num_labels) if num_labels is not None else _table_of_numbers(found, labels)


def adopt_names(config: PreTrainedConfig, dataset: Any, column: str) -> None:
    """Give a probe without names those that its training column has, if there are as many; other probes stay.

    Args:
        config: Configuration of the probe.
        dataset: The training split, as `datasets` holds it.
        column: Its label column.
    """
    table = LabelTable.from_config(config)
    if not table.is_generic or config.problem_type != "single_label_classification":
        return
    names = names_of((getattr(dataset, "features", None) or {}).get(column))
    if names is None and isinstance(dataset, Dataset) and column in dataset.column_names:
        found = [label for label in Labels.of(dataset, column).distinct()[0] if label is not None]
        names = tuple(sorted(found)) if all(isinstance(label, str) for label in found) else None
    if names is not None and len(names) == len(table.names):
        for key, value in LabelTable.of_names(names).to_config().items():
            setattr(config, key, value)


def _table_of_numbers(found: list[Any], labels: Labels) -> LabelTable:
    if not found:
        raise ValueError("The training split has no labels.")
    fractions = [label for label in found if label != int(label)]
    are_measured = pa.types.is_floating(labels.array.type) and len(found) > max(2, len(labels.array) // 2)
    if fractions or are_measured:
        example = (fractions or found)[0]
        raise ValueError(
            f"The labels are numbers such as {example!r}, no classes; set problem_type to regression, or bring classes."
        )
    values = sorted({int(label) for label in found})
    if all(isinstance(label, bool) for label in found):
        return _more_than_one(LabelTable(tuple(str(bool(value)) for value in values), tuple(values)))
    return _more_than_one(LabelTable.of_values(values))


def _labels_of_rows(labels: Labels, separator: str | None) -> list[Any]:
    """The distinct labels of a multi-label column."""
    array = labels.array
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
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


def _more_than_one(table: LabelTable) -> LabelTable:
    if len(table.names) < 2:
        raise ValueError(f"All training images have the label {table.names[0]!r}: there is nothing to tell apart.")
    return table
