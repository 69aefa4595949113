"""What kind of problem a column of labels is, decided from the whole column: classes, tags or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from attentive_probes.problems.label_columns import Labels, is_list, is_number

# Names for people -> names as transformers writes them.
KINDS = {
    "classes": "single_label_classification",
    "tags": "multi_label_classification",
    "numbers": "regression",
}
FEW = 20  # distinct whole numbers that are classes, whatever they are
SEPARATORS = ("|", ";", ",", "+", "/")


class KindOfLabels(NamedTuple):
    """What a column was taken for.

    Args:
        problem_type: As transformers writes it.
        separator: What stands between the tags of an image where they are one text.
        doubt: How it could have been meant as well, and how to say so; empty where there is no doubt.
    """

    problem_type: str
    separator: str | None = None
    doubt: str = ""


def kind_of_labels(labels: Labels) -> KindOfLabels:
    """Find out what a column of labels is.

    Names of a `ClassLabel`, texts and truth values are classes; texts of several names with one separator between them,
    and lists of names or of zeros and ones, are tags; numbers with a fraction are numbers. Whole numbers are classes
    if there are few, or if they count from 0 or 1; else they are classes where they are stored as integers, which may
    be ids, and numbers where they are stored as floats.

    Args:
        labels: The whole column.
    """
    array = labels.array
    if is_list(array) or pa.types.is_nested(array.type):
        return _of_lists(array)
    if labels.names is not None or pa.types.is_boolean(array.type):
        return KindOfLabels(KINDS["classes"])
    if labels.are_texts:
        return _of_texts([text for text in labels.distinct()[0] if text])
    if not is_number(array.type):
        return KindOfLabels(KINDS["classes"])
    values = array.drop_null().to_numpy(zero_copy_only=False)
    return _of_numbers(values[np.isfinite(values)], labels.are_floats)


def _of_numbers(values: np.ndarray, are_floats: bool) -> KindOfLabels:
    distinct, counts = np.unique(values, return_counts=True)
    if are_floats and (distinct != np.round(distinct)).any():
        few = len(distinct) <= FEW and counts.min() > 1
        return KindOfLabels(KINDS["numbers"], doubt=_few(len(distinct)) if few else "")
    counts_up = len(distinct) and distinct[0] in (0, 1) and distinct[-1] - distinct[0] == len(distinct) - 1
    if len(distinct) <= FEW or (counts_up and counts.mean() >= 2):
        return KindOfLabels(KINDS["classes"])
    if are_floats or counts.mean() < 2:
        return KindOfLabels(KINDS["numbers"], doubt="If these whole numbers are ids of classes: --problem classes.")
    span = f"{len(distinct)} whole numbers from {distinct[0]} to {distinct[-1]} were taken for ids of classes"
    return KindOfLabels(KINDS["classes"], doubt=f"{span}; if they are amounts: --problem numbers.")


def _few(count: int) -> str:
    return f"If these {count} different numbers are classes: --problem classes."


def _of_lists(array: pa.Array) -> KindOfLabels:
    flat = array.flatten() if is_list(array) else pa.array([])
    if not pa.types.is_floating(flat.type):
        return KindOfLabels(KINDS["tags"])
    values = flat.drop_null().to_numpy(zero_copy_only=False)
    return KindOfLabels(KINDS["tags"] if np.isin(values, (0, 1)).all() else KINDS["numbers"])


def _of_texts(texts: Sequence[str]) -> KindOfLabels:
    """Classes, unless one separator cuts the texts into names that come again alone or in other company."""
    for separator in SEPARATORS:
        several = [text for text in texts if separator in text]
        if not several:
            continue
        parts = [tuple(part.strip() for part in text.split(separator)) for text in texts]
        met = Counter(name for names in parts for name in set(names))
        again = [name for text in several for name in text.split(separator) if met[name.strip()] > 1]
        total = sum(text.count(separator) + 1 for text in several)
        is_cut = all(all(names) and len(set(names)) == len(names) for names in parts)
        least = 1.0 if len(several) == 1 else 0.75  # of the names, that come again
        if is_cut and len(again) >= least * total and len(met) < len(texts):
            return KindOfLabels(
                KINDS["tags"], separator, f"If {several[0]!r} is one class, not several tags: --problem classes."
            )
    return KindOfLabels(KINDS["classes"])
