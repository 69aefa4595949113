"""What a recipe wants to know of its test split beside what every head gets."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from attentive_probes.data.splitting.split_parts import Part
from attentive_probes.evaluation.subgroup_metrics import DetailOptions, check_details
from attentive_probes.experiments.evaluation_block import EvaluationRecipe
from attentive_probes.problems import Problem
from attentive_probes.problems.label_table import LabelTable


def details_of(evaluation: EvaluationRecipe, part: Part | None, table: LabelTable, problem: Problem) -> DetailOptions:
    """The details of a test split, checked before any work.

    Args:
        evaluation: What is asked for.
        part: The test split as it was read; `None` if there is none.
        table: The labels of the run.
        problem: What the labels are.

    Raises:
        ValueError: If there is no such column or class, or a metric does not suit the classes.
    """
    if (evaluation.metrics or evaluation.slices or evaluation.predictions) and not problem.has_one_class:
        raise ValueError(f"evaluation.metrics, slices and predictions are for single labels, not for {problem.name}.")
    if (evaluation.metrics or evaluation.slices) and (part is None or not isinstance(part.data, Dataset)):
        raise ValueError("evaluation.metrics and slices need a test split that is no stream.")
    num_labels = len(table.names)
    check_details(evaluation.metrics, num_labels)
    positive = num_labels - 1 if evaluation.positive is None else table.id_of(evaluation.positive)
    if positive is None:
        raise ValueError(f"evaluation.positive: {table.unknown(evaluation.positive)}")
    if part is None or not isinstance(part.data, Dataset):
        return DetailOptions(predictions=evaluation.predictions)
    rows, groups = part.all_rows.tolist(), part.by_row()
    slices: dict[str, dict[int, Any]] = {}
    for column in evaluation.slices:
        if column not in part.data.column_names:
            known = part.data.column_names
            raise ValueError(f"There is no column {column!r} in the test split (evaluation.slices); there are {known}.")
        slices[column] = dict(zip(rows, map(str, part.data[column]), strict=True))
    wanted = (tuple(evaluation.metrics), positive, evaluation.specificity, groups, slices, evaluation.predictions)
    return DetailOptions(*wanted)
