"""The one label table of a run: whatever stands for a class in data, every split goes through it."""

import pyarrow as pa
import pytest
from datasets import ClassLabel, List, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder, make_table
from attentive_probes.data.load import load_split
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.problems.label_columns import Labels
from attentive_probes.problems.label_table import LabelTable
from colours import class_folders, perfect_probe, png, shard, table

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def found(values, problem_type=SINGLE, **options):
    return make_table(Labels(pa.array(values)), problem_type, **options)


@pytest.mark.parametrize(
    ("labels", "names", "values"),
    [
        (list(range(12)), tuple(map(str, range(12))), tuple(range(12))),  # by size, not 0, 1, 10, 11, 2
        ([5, 1, 3, 1], ("1", "3", "5"), (1, 3, 5)),
        ([-1, 7, 100], ("-1", "7", "100"), (-1, 7, 100)),
        ([2.0, 1.0, 2.0, 1.0], ("1", "2"), (1, 2)),
        ([True, False], ("False", "True"), (0, 1)),
        (["10", "9", "b"], ("10", "9", "b"), ("10", "9", "b")),
        (["None", "NA", "no"], ("NA", "None", "no"), ("NA", "None", "no")),
    ],
)
def test_tables_of_columns(labels, names, values):
    """Numbers in the order of their size, names in that of the alphabet; every label finds its class."""
    label_table = found(labels)
    assert (label_table.names, label_table.values) == (names, values)
    assert [label_table.id_of(label) for label in sorted(set(labels))] == list(range(len(names)))


def test_given_names_and_numbers():
    """With names or a number of classes, integers are ids; names are found as well, and by their own column first."""
    for options in ({"names": ["ant", "bee", "cat"]}, {"num_labels": 3}):
        assert [found([2, 0, 1], **options).id_of(i) for i in range(4)] == [0, 1, 2, None]
    assert found(["bee", "cat"], names=["ant", "bee", "cat"]).id_of("cat") == 2
    assert found([0, 1, 1], names=None, num_labels=None).values == (0, 1)
    with_names = make_table(Labels(pa.array([1, 0]), ("dog", "cat")), SINGLE)
    assert with_names == LabelTable(("dog", "cat"))
    assert LabelTable.numbered(3).id_of("2") == 2 and LabelTable.numbered(3).id_of("02") is None


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0.5, 1.0, 0.5], {}, "numbers such as 0.5, no classes; set problem_type to regression"),
        ([20.0, 21.0, 22.0, 23.0], {}, "numbers such as 20.0, no classes"),
        (["cat", "cat"], {}, "have the label 'cat': there is nothing to tell apart"),
        ([[1, 0]], {}, "labels are lists; set problem_type"),
        ([None, None], {}, "has no labels"),
        (["a", "b"], {"num_labels": 3}, "num_labels is 3, but the training split holds 2 names"),
        (["a", "b"], {"num_labels": 3, "names": ["a", "b"]}, "num_labels=3 contradicts the 2 names"),
        (["a", "b"], {"problem_type": MULTI}, "say what stands between the labels"),
        ([1, 2], {"problem_type": MULTI}, "single ones, not several"),
    ],
)
def test_columns_that_make_no_table(labels, options, message):
    """What is no column of classes is refused, with the way out."""
    problem_type = options.pop("problem_type", SINGLE)
    with pytest.raises(ValueError, match=message):
        found(labels, problem_type, **options)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("Cat", "no class 'Cat'. Did you mean 'cat'"),
        ("dgo", "Did you mean 'dog'"),
        (None, "in row 1 of the test split: it is empty"),
        (float("nan"), "it is empty|no class"),
        (7, "knows no class 7|not a class id"),
    ],
)
def test_unknown_labels(raw, message):
    """A label that is in no training image is refused in its row, with the nearest name; none is taken by its place."""
    encoder = LabelEncoder(LabelTable.of_values(["cat", "dog"]), SINGLE)
    type_ = pa.string() if isinstance(raw, str) or raw is None else None
    good = "cat" if type_ is not None else 0
    if type_ is None:
        encoder = LabelEncoder(LabelTable.of_values([0, 1]), SINGLE)
    with pytest.raises(ValueError, match=message):
        encoder.column(Labels(pa.array([good, raw], type_)), "test")


def test_class_labels_of_other_orders_and_subsets():
    """ClassLabel columns are matched by name in any order; names without a row do not matter; -1 is no label."""
    encoder = LabelEncoder(LabelTable(("cat", "dog", "eel")), SINGLE)
    assert encoder.column(Labels(pa.array([0, 1, 0]), ("eel", "cat")), "test").tolist() == [2, 0, 2]
    assert encoder.column(Labels(pa.array([1]), ("zebra", "dog")), "test").tolist() == [1]
    with pytest.raises(ValueError, match="label 'zebra' in row 0 .* knows no class 'zebra'"):
        encoder.column(Labels(pa.array([0]), ("zebra", "dog")), "test")
    with pytest.raises(ValueError, match="it is empty"):
        encoder.column(Labels(pa.array([-1]), ("cat", "dog")), "test")


def test_numbers_beside_names():
    """Folders 1, 2, 10, 11 stand in the order of the alphabet: an integer is its folder, not a place in that order."""
    folders = make_table(Labels(pa.array([0, 1, 2, 3]), ("1", "10", "11", "2")), SINGLE)
    assert [folders.id_of(label) for label in (1, 2, 10, 11, "2", 0, 3)] == [0, 3, 1, 2, 3, None, None]
    padded = make_table(Labels(pa.array([0, 1]), ("001", "010")), SINGLE)
    assert [padded.id_of(label) for label in ("010", 1, 10, 0)] == [1, None, None, None]
    names = make_table(Labels(pa.array([0, 1]), ("cat", "dog")), SINGLE)
    assert [names.id_of(label) for label in (0, 1, 2, "dog")] == [0, 1, None, 1]
    assert LabelTable.of_values(["False", "True"]).id_of(True) == 1


@pytest.mark.parametrize(
    ("rows", "options", "names", "targets"),
    [
        ([[1, 0, 1], [0, 0, 0]], {}, ("0", "1", "2"), [[1, 0, 1], [0, 0, 0]]),
        ([["b", "a"], [], ["c"]], {}, ("a", "b", "c"), [[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        ([[7, 12], [3]], {}, ("3", "7", "12"), [[0, 1, 1], [1, 0, 0]]),
        ([[0, 2], [1]], {"names": ["x", "y", "z"]}, ("x", "y", "z"), [[1, 0, 1], [0, 1, 0]]),
        (["a|b", "", "b | c"], {"separator": "|"}, ("a", "b", "c"), [[1, 1, 0], [0, 0, 0], [0, 1, 1]]),
    ],
)
def test_several_labels(rows, options, names, targets):
    """Rows of zeros and ones, lists of names or ids, and text with a separator that is named."""
    label_table = found(rows, MULTI, **options)
    assert label_table.names == names
    encoder = LabelEncoder(label_table, MULTI, options.get("separator"))
    assert encoder.column(Labels(pa.array(rows)), "train").tolist() == targets


def test_several_labels_that_are_wrong():
    """An unknown name, a row that is neither, an empty cell: each is named with its row."""
    encoder = LabelEncoder(LabelTable.of_values(["a", "b", "c"]), MULTI)
    for row, message in ((["a", "d"], "no class 'd'"), ([0.0, 2.0, 0.0], "no row of 3 zeros"), (None, "no row of 3")):
        kind = pa.list_(pa.float64() if row == [0.0, 2.0, 0.0] else pa.string())
        with pytest.raises(ValueError, match=rf"in row 0 of the test split: .*{message}"):
            encoder.column(Labels(pa.array([row], kind)), "test")


def test_regression_infers_its_targets():
    """One number, one number in a list, or several per image."""
    for rows, num_labels in (([1.5, 2.0], 1), ([[1.5], [2.0]], 1), ([[1, 2], [3, 4]], 2), ([20, 30], 1)):
        label_table = found(rows, REGRESSION)
        assert len(label_table.names) == num_labels
        targets = LabelEncoder(label_table, REGRESSION).column(Labels(pa.array(rows)), "train")
        assert targets.shape == ((2,) if num_labels == 1 else (2, 2))
    with pytest.raises(ValueError, match="in row 1 .* not a finite number"):
        LabelEncoder(LabelTable.numbered(1), REGRESSION).column(Labels(pa.array([1.0, None])), "train")


UNIVERSES = {
    "integers": [0, 1, 2, 3, 10, 11, 12, 20, 100],
    "from one": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    "negative": [-5, -1, 0, 3, 40],
    "floats": [0.0, 1.0, 2.0, 10.0],
    "booleans": [False, True],
    "names": ["cat", "dog", "None", "NA", "no", "001", "10", "9", "true", "a b#?%"],
}


@st.composite
def worlds(draw):
    """Labels of a kind, those of training and of another split, whether they are a ClassLabel, and a reader."""
    universe = UNIVERSES[draw(st.sampled_from(sorted(UNIVERSES)))]
    train = draw(st.lists(st.sampled_from(universe), min_size=2, unique=True))
    other = draw(st.lists(st.sampled_from(universe), min_size=1, unique=True))
    as_classes = isinstance(train[0], str) and draw(st.booleans())
    reader = draw(st.sampled_from(["memory", "parquet", "csv", "folders", "webdataset"]))
    return universe, train, other, as_classes, reader


def written(root, reader, split, universe, labels, as_classes):
    """The images of some labels, two of each, as a reader finds them."""
    kinds = [universe.index(label) for label in labels for _ in range(2)]
    repeated = [label for label in labels for _ in range(2)]
    feature = ClassLabel(names=labels) if as_classes else None
    if reader == "csv":
        rows = [f'{universe.index(label)}/{i}.png,"{label}"' for label in labels for i in ("000", "001")]
        class_folders(root / split, {universe.index(label): [universe.index(label)] * 2 for label in labels})
        (root / split / "list.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
        return root / split / "list.csv", "train"
    if reader == "folders" and isinstance(labels[0], str):
        class_folders(root / split, {label: [universe.index(label)] * 2 for label in labels})
        return root, split
    if reader == "webdataset":
        samples = [{"png": png(kind), "json": {"label": label}} for kind, label in zip(kinds, repeated, strict=True)]
        shard(root / f"{split}-0.tar", samples)
        return root, split
    data = table(kinds, [labels.index(label) for label in repeated] if as_classes else repeated, feature)
    if reader == "memory":
        data.save_to_disk(str(root / split))
        return root / split, "train"
    data.to_parquet(root / f"{split}.parquet")
    return root, split


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds())
def test_every_way_in_gives_the_same_answer(world, tmp_path_factory):
    """A probe that is always right scores 100 on the same data by any reader, held or streamed, or it is refused."""
    universe, train, other, as_classes, reader = world
    root = tmp_path_factory.mktemp("world")
    source, split = written(root, reader, "train", universe, train, as_classes)
    training = load_split(str(source), split)
    label_table = make_table(Labels.of(training, "label"), SINGLE)
    assert len(label_table.names) == len(train)
    probe = perfect_probe(label_table, {label_table.id_of(label): universe.index(label) for label in train})
    for labels in (train[::-1], other):
        name = "test" if labels is other else "validation"
        source, split = written(root, reader, name, universe, labels, as_classes)
        for streaming in (False, True):
            data = load_split(str(source), split, streaming=streaming)
            if set(labels) <= set(train):
                assert evaluate_probe(probe, data, ImageOptions(check=False))["top1"] == 100, (labels, streaming)
            else:
                with pytest.raises(ValueError, match="knows no class"):
                    evaluate_probe(probe, data, ImageOptions(check=False))


def test_labels_of_any_storage():
    """Dictionary-encoded and large strings, small integers and lists of classes are read as what they are."""
    data = table([0, 1], ["a", "b"], Value("large_string"))
    assert Labels.of(data, "label").distinct()[0] == ["a", "b"]
    data = table([0, 1], [0, 1], Value("int8")).with_format("torch", columns=["label"])
    assert sorted(Labels.of(data, "label").distinct()[0]) == [0, 1]
    data = table([0, 1], [[0], [0, 1]], List(ClassLabel(names=["x", "y"])))
    encoder = LabelEncoder(LabelTable(("y", "x")), MULTI)
    assert encoder.column(Labels.of(data, "label"), "test").tolist() == [[0, 1], [1, 1]]
    with pytest.raises(ValueError, match="no labels; name another label_column"):
        Labels.of(data, "image")
