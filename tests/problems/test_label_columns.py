import numpy as np
import pyarrow as pa
import pytest

from attentive_probes.data.labels import LabelEncoder
from attentive_probes.problems.label_columns import Labels
from attentive_probes.problems.label_table import LabelTable

RNG = np.random.default_rng(0)
IDS = [sorted(RNG.choice(5, RNG.integers(0, 4), replace=False).tolist()) for _ in range(200)]
NAMES = ("ant", "bee", "cat", "dog", "elk")
WORDS = [[NAMES[i] for i in row] for row in IDS]
NUMBERED, NAMED = LabelTable.numbered(5), LabelTable.of_names(NAMES)

COLUMNS = {
    "lists of ids": (pa.array(IDS, pa.list_(pa.int64())), NUMBERED, "multi_label_classification", None),
    "lists of names": (pa.array(WORDS), NAMED, "multi_label_classification", None),
    "ids with names": (pa.array(IDS, pa.large_list(pa.int8())), NAMED, "multi_label_classification", NAMES[::-1]),
    "zeros and ones": (pa.array(RNG.integers(0, 2, (200, 5)).tolist()), NUMBERED, "multi_label_classification", None),
    "texts": (pa.array([";".join(row) for row in WORDS]), NAMED, "multi_label_classification", None),
    "a number": (pa.array(RNG.random(200)), LabelTable.numbered(1), "regression", None),
    "a whole number": (pa.array(range(200)), LabelTable.numbered(1), "regression", None),
    "a list of one": (pa.array([[x] for x in range(200)]), LabelTable.numbered(1), "regression", None),
    "numbers": (pa.array(RNG.random((200, 3)).tolist()), LabelTable.numbered(3), "regression", None),
    "numbers of fixed size": (
        pa.FixedSizeListArray.from_arrays(pa.array(RNG.random(600)), 3), LabelTable.numbered(3), "regression", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLUMNS)
def test_whole_columns_are_their_rows(kind):
    """A column that is read at once has the targets of its labels read one by one; also when it is a slice."""
    array, table, problem_type, names = COLUMNS[kind]
    encoder = LabelEncoder(table, problem_type, ";")
    for part in (array, array.slice(37, 90), array.slice(0, 0)):
        labels = Labels(part, names)
        indicators = kind == "zeros and ones"
        found = encoder.problem.targets(labels, table, ";") if len(part) else encoder.column(labels, "train")
        assert found is not None
        reader = encoder.reader(names, indicators)
        expected = [reader(label, "") for label in labels.values()]
        assert found.dtype == np.float32 and len(found) == len(part)
        assert not len(part) or np.array_equal(found, np.stack(expected))


@pytest.mark.parametrize(
    ("array", "problem_type", "text"),
    [
        (pa.array([[0], [1, 1]]), "multi_label_classification", "in row 1 of the train split"),
        (pa.array([[0], [7]]), "multi_label_classification", "in row 1"),
        (pa.array([[0], None]), "multi_label_classification", "in row 1"),
        (pa.array([[0], [1, None]]), "multi_label_classification", "in row 1"),
        (pa.array([[0.0], [2.0]]), "multi_label_classification", "in row 0"),
        (pa.array([0.5, None]), "regression", "in row 1"),
        (pa.array([0.5, np.inf]), "regression", "in row 1"),
        (pa.array(["0.5", "a"]), "regression", "in row 1"),
        (pa.array([[0.5], [0.5, 1.0]]), "regression", "in row 1"),
    ],
)
def test_wrong_rows_are_named(array, problem_type, text):
    """What no column holds as a whole is found row by row."""
    width = 1 if problem_type == "regression" else 5
    with pytest.raises(ValueError, match=text):
        LabelEncoder(LabelTable.numbered(width), problem_type).column(Labels(array), "train")
