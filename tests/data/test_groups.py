"""What belongs together stays together, whatever is held out."""

import logging

import numpy as np
import pytest
from datasets import Dataset, Image
from hypothesis import given
from hypothesis import strategies as st

from attentive_probes.data.splitting.groups import check_groups_apart, groups_of, joined, with_copies
from attentive_probes.data.splitting.hold_out import hold_out
from tiny import image_dataset


@given(
    groups=st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=4, max_size=80),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 3),
)
def test_no_group_is_on_both_sides(groups, fraction, seed):
    """Every row is on one side, with its group; no class is held out as a whole."""
    names, classes = (np.array(column) for column in zip(*groups, strict=True))
    try:
        kept, held = hold_out(classes, names, fraction, seed)
    except ValueError as error:
        assert "group" in str(error)
        return
    assert sorted([*kept, *held]) == list(range(len(classes))) and len(held) > 0
    assert not set(names[kept]) & set(names[held])
    assert set(classes[kept]) == set(classes)


def test_shares_are_kept_where_groups_allow():
    """Two hundred groups of three classes: a fifth of the images of each class; another seed, other groups."""
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(200), rng.integers(1, 8, 200))
    classes = (names % 3)[np.arange(len(names))]
    held = hold_out(classes, names, 0.2, 0)[1]
    for label in range(3):
        assert (classes[held] == label).sum() / (classes == label).sum() == pytest.approx(0.2, abs=0.02)
    assert set(held) != set(hold_out(classes, names, 0.2, 1)[1])
    assert (held == hold_out(classes, names, 0.2, 0)[1]).all()


def test_who_is_held_out_is_chance():
    """Groups of 5 to 44 images, of which large ones are hard: another seed holds out others, of every size.

    The accuracy of what is held out is, on average over seeds, that of all.
    """
    sizes = np.arange(5, 45)
    names = np.repeat([f"patient {i:02d}" for i in range(40)], sizes)
    shares = 0.95 - 0.4 * (sizes - 5) / 39
    parts, found = set(), []
    for seed in range(300):
        held = hold_out(np.arange(len(names)) % 2, names, 0.2, seed)[1]
        parts.add(frozenset(names[held]))
        found.append(np.mean([shares[int(name[-2:])] for name in names[held]]))
        assert len(held) / len(names) == pytest.approx(0.2, abs=0.03)
    assert len(parts) > 290
    assert 100 * np.mean(found) == pytest.approx(100 * (shares * sizes).sum() / sizes.sum(), abs=0.6)


def test_what_belongs_together_by_several_names():
    """Copies join the groups that they are in; all alone is no group at all."""
    assert with_copies(None, np.array(["x", "y", "z"])) is None
    assert with_copies(None, np.array(["x", "y", "x"])).tolist() == ["x", "y", "x"]
    groups = np.array(["a", "b", "b", "c", "d"])
    assert with_copies(groups, np.array(["1", "2", "3", "2", "4"])).tolist() == ["a", "b", "b", "b", "d"]
    assert joined(groups, pairs=[(0, 4)]).tolist() == ["a", "b", "b", "c", "a"]


def test_what_cannot_be_held_out(caplog):
    """One group; groups that each hold all of a class; a class of a single group stays, with a warning."""
    with pytest.raises(ValueError, match="in 1 groups"):
        hold_out(np.array([0, 1]), np.array(["x", "x"]), 0.5, 0)
    with pytest.raises(ValueError, match="without taking all images of a class"):
        hold_out(np.array([0, 0, 1]), np.array(["x", "x", "y"]), 0.3, 0)
    with caplog.at_level(logging.WARNING):
        kept, _ = hold_out(np.array([0, 0, 0, 0, 1]), np.array(["a", "b", "c", "d", "e"]), 0.25, 0)
    assert 4 in kept and "1 classes have all of their images in training" in caplog.text


def test_groups_by_column_and_by_path(tmp_path):
    """A column of any type; a pattern on paths, by its first group or what it matches; what does not match is named."""
    data = image_dataset(4).add_column("patient", [7, 7, 8, 9])
    assert groups_of(data, "image", "patient", None).tolist() == ["7", "7", "8", "9"]
    assert groups_of(data, "image", None, None) is None
    with pytest.raises(ValueError, match="no column data.group_column='scene'.*'patient'"):
        groups_of(data, "image", "scene", None)
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"scene{number // 2}_{number}.png"))
        data[number]["image"].save(paths[-1])
    files = Dataset.from_dict({"image": paths, "label": [0, 1, 0]}).cast_column("image", Image())
    assert groups_of(files, "image", None, r"scene(\d+)_").tolist() == ["0", "0", "1"]
    assert groups_of(files, "image", None, r"scene\d+").tolist() == ["scene0", "scene0", "scene1"]
    with pytest.raises(ValueError, match=r"group_pattern='module' does not match the path .*scene0_0.*row 0"):
        groups_of(files, "image", None, "module")
    with pytest.raises(ValueError, match="no regular expression"):
        groups_of(files, "image", None, "(")


def test_groups_of_named_splits():
    """A group in two splits is named with both."""
    check_groups_apart({"train": np.array(["a", "b"]), "test": np.array(["c"])})
    with pytest.raises(ValueError, match="group 'b' is in the train split and in the test split"):
        check_groups_apart({"train": np.array(["a", "b"]), "test": np.array(["b"])})
