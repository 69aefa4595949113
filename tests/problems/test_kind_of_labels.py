"""What kind of problem a column of labels is, from the whole column."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from attentive_probes.problems.kind_of_labels import KINDS, kind_of_labels
from attentive_probes.problems.label_checks import look_alikes, unlabelled_rows
from attentive_probes.problems.label_columns import Labels

AGES = [20 + 7 * i % 41 for i in range(60)]


def column(values, feature=None):
    features = None if feature is None else Features({"label": feature})
    return Labels.of(Dataset.from_dict({"label": values}, features=features), "label")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["cat", "dog", None], "classes"),
        (["1.1", "1.10", "2.1"], "classes"),
        ([True, False], "classes"),
        ([0, 1, 2] * 5, "classes"),
        ([7, 1000, -3] * 5, "classes"),  # few
        ([float(i % 3) for i in range(30)], "classes"),  # as pandas writes ids with a gap
        ([0.0, 1.0, None, float("nan")], "classes"),
        ([0.5, 1.0, 2.25], "numbers"),
        ([1.0] * 50 + [1.5], "numbers"),  # the last one alone has a fraction
        ([float(age) for age in AGES], "numbers"),
        (AGES, "numbers"),  # whole, and few of a kind
        (list(range(100)) * 3, "classes"),  # ids, from 0 on
        ([[0, 1], [1, 1]], "tags"),
        ([["sun"], ["sun", "sea"]], "tags"),
        ([[0.0, 1.0], [1.0, 1.0]], "tags"),
        ([[0.1, 2.0], [1.0, 1.0]], "numbers"),
        (["sun", "sea", "sun|sea"], "tags"),
        (["sun; sea", "sea; rain", "rain; sun", "sun"], "tags"),
        (["Smith, John", "Miller, Ann", "Smith, Ann"], "classes"),  # names of people
        (["black/white", "red", "brown"], "classes"),
    ],
    ids=str,
)
def test_the_whole_column_decides(values, kind):
    """Not its first value, and not how it is stored."""
    assert kind_of_labels(column(values)).problem_type == KINDS[kind]
    assert kind_of_labels(column(values[::-1])).problem_type == KINDS[kind]


def test_names_are_classes():
    """Ids with names behind them, also where these are numbers."""
    assert kind_of_labels(column([0, 1, 1], ClassLabel(names=["5", "20"]))).problem_type == KINDS["classes"]


def test_separators_and_doubts():
    """The separator is found; where a reasonable person would have read it otherwise, it is said how to say so."""
    assert kind_of_labels(column(["a;b", "a", "b", "b;c", "c"])).separator == ";"
    assert "--problem classes" in kind_of_labels(column(["a|b", "a", "b"])).doubt
    assert "--problem classes" in kind_of_labels(column([0.5, 1.5] * 10)).doubt
    assert kind_of_labels(column(["a", "b"])).doubt == ""
    many = np.repeat(np.arange(30, 60), 4).tolist()
    assert "30 whole numbers from 30 to 59" in kind_of_labels(column(many)).doubt


def test_rows_without_a_label():
    """Nothing, blank text, NaN, and the -1 that stands for no class of a ClassLabel."""
    assert unlabelled_rows(column(["a", "", None, " \u00a0", "0"])).tolist() == [1, 2, 3]
    assert unlabelled_rows(column([0.0, float("nan"), None])).tolist() == [1, 2]
    assert unlabelled_rows(column([0, -1, 1], ClassLabel(names=["a", "b"]))).tolist() == [1]
    assert unlabelled_rows(column([0, -1, 1], Value("int64"))).tolist() == []
    assert unlabelled_rows(column([["a"], [], None])).tolist() == [2]


def test_names_that_look_alike():
    """Spaces of all kinds, case and Unicode forms."""
    names = ["red", "red ", "Red", "re\u0301d", "r\u00e9d", "blue\u00a0sky", "blue  sky", "green"]
    assert look_alikes(names) == [("red", "red ", "Red"), ("re\u0301d", "r\u00e9d"), ("blue\u00a0sky", "blue  sky")]
