"""Labels that are classes: the table of a column of them, and the id of a single one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attentive_probes.problems.label_table import LabelTable

if TYPE_CHECKING:
    from attentive_probes.problems.label_columns import Labels


def class_table(labels: Labels, found: list[Any], num_labels: int | None) -> LabelTable:
    """The table of the distinct labels of a training column without names of its own.

    Args:
        labels: The training column.
        found: Its distinct labels.
        num_labels: Number of classes that was asked for.

    Raises:
        ValueError: If they contradict that number, or cannot be classes.
    """
    if labels.names is not None:
        raise ValueError(f"num_labels is {num_labels}, but the label column names {len(labels.names)} classes.")
    if found and all(isinstance(label, str) for label in found):
        if num_labels not in (None, len(found)):
            raise ValueError(f"num_labels is {num_labels}, but the training split holds {len(found)} names.")
        return more_than_one(LabelTable.of_values(found))
    return LabelTable.numbered(num_labels) if num_labels is not None else _table_of_numbers(found, labels)


def named_table(labels: Labels, names: Sequence[str] | None, num_labels: int | None) -> LabelTable | None:
    """The table of names that were asked for, or that the column brings; `None` if there are no such names.

    Raises:
        ValueError: If the column names a single class.
    """
    if names is not None:
        return LabelTable(tuple(names))
    if labels.names is not None and num_labels in (None, len(labels.names)):
        return more_than_one(LabelTable.of_names(labels.names))
    return None


def class_id(label: Any, table: LabelTable, names: Sequence[str] | None) -> int:
    """The id of a single label.

    Args:
        label: As it is stored.
        table: The label table of the run.
        names: Names behind the ids of a `ClassLabel` column, in its order.

    Raises:
        ValueError: If it is empty or stands for no class.
    """
    label = named(label, names) if not (table.is_generic and names) else label
    if label is None or label != label:
        raise ValueError("it is empty; leave the image out, or give it a class.")
    found = table.id_of(label)
    if found is None:
        raise ValueError(table.unknown(label))
    return found


def named(label: Any, names: Sequence[str] | None) -> Any:
    """The name behind an id of a `ClassLabel` column; other labels as they are. -1 is how `datasets` marks a gap."""
    if names is None or not isinstance(label, int):
        return label
    return names[label] if 0 <= label < len(names) else None


def more_than_one(table: LabelTable) -> LabelTable:
    """A table of at least two classes.

    Raises:
        ValueError: If there is a single class.
    """
    if len(table.names) < 2:
        raise ValueError(f"All training images have the label {table.names[0]!r}: there is nothing to tell apart.")
    return table


def _table_of_numbers(found: list[Any], labels: Labels) -> LabelTable:
    if not found:
        raise ValueError("The training split has no labels.")
    fractions = [label for label in found if label != int(label)]
    # Floats of which most are distinct are measurements, also where all of them happen to be whole numbers.
    are_measured = labels.are_floats and len(found) > max(2, len(labels.array) // 2)
    if fractions or are_measured:
        example = (fractions or found)[0]
        raise ValueError(
            f"The labels are numbers such as {example!r}, no classes; set problem_type to regression, or bring classes."
        )
    values = sorted({int(label) for label in found})
    if all(isinstance(label, bool) for label in found):
        return more_than_one(LabelTable(tuple(str(bool(value)) for value in values), tuple(values)))
    return more_than_one(LabelTable.of_values(values))
