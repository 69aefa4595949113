"""What belongs together stays together, whatever is held out."""

import logging

import numpy as np
import pytest
from datasets import Dataset, Image
from hypothesis import given
from hypothesis import strategies as st

from attentive_probes.data.groups import check_groups_apart, groups_of, hold_out_groups
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
        kept, held = hold_out_groups(classes, names, fraction, seed)
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
    held = hold_out_groups(classes, names, 0.2, 0)[1]
    for label in range(3):
        assert (classes[held] == label).sum() / (classes == label).sum() == pytest.approx(0.2, abs=0.02)
    assert set(held) != set(hold_out_groups(classes, names, 0.2, 1)[1])
    assert (held == hold_out_groups(classes, names, 0.2, 0)[1]).all()


def test_what_cannot_be_held_out(caplog):
    """One group; groups that each hold all of a class; a class of a single group stays, with a warning."""
    with pytest.raises(ValueError, match="There is 1 group"):
        hold_out_groups(np.array([0, 1]), np.array(["x", "x"]), 0.5, 0)
    with pytest.raises(ValueError, match="No group can be held out"):
        hold_out_groups(np.array([0, 0, 1]), np.array(["x", "x", "y"]), 0.3, 0)
    with caplog.at_level(logging.WARNING):
        kept, _ = hold_out_groups(np.array([0, 0, 0, 0, 1]), np.array(["a", "b", "c", "d", "e"]), 0.25, 0)
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
