"""Parts of a split, drawn class by class."""

import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attentive_probes.data.splitting.hold_out import hold_out, low_shot, rows_by_class

CLASSES = np.arange(40) % 3  # classes of 14, 13 and 13 rows


def alone(classes, fraction, seed):
    """What is held out of images of which no two are alike."""
    return hold_out(np.asarray(classes), np.array([f"image {i}" for i in range(len(classes))]), fraction, seed)


def counts(rows, classes=CLASSES):
    return Counter(classes[rows].tolist())


@given(
    classes=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=60).filter(
        lambda labels: max(Counter(labels).values()) > 1
    ),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 3),
)
def test_every_class_is_on_both_sides_where_it_can_be(classes, fraction, seed):
    """Each row is on one side; a class of two or more is on both, by its share; the only row of a class stays."""
    classes = np.array(classes)
    kept, held = alone(classes, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(classes)))
    for label, count in Counter(classes.tolist()).items():
        expected = 0 if count == 1 else min(max(1, round(fraction * count)), count - 1)
        assert counts(held, classes)[label] == expected


def test_small_and_uneven_sets(caplog):
    """Forty classes of three images, a long tail, a class of one with a warning; nothing to hold out is an error."""
    kept, held = alone(np.repeat(np.arange(40), 3), 0.1, 0)
    assert (len(kept), len(held)) == (80, 40)
    tail = np.repeat(np.arange(5), [1000, 100, 10, 2, 1])
    with caplog.at_level(logging.WARNING):
        _, held = alone(tail, 0.1, 0)
    assert counts(held, tail) == {0: 100, 1: 10, 2: 1, 3: 1}
    assert "1 classes have all of their images in training" in caplog.text
    with pytest.raises(ValueError, match="Nothing can be held out for validation.*name a data.validation_split"):
        alone(np.arange(4), 0.1, 0)
    with pytest.raises(ValueError, match="validation_fraction is 1.5"):
        alone(CLASSES, 1.5, 0)


def test_draws_follow_their_seed():
    """Equal seeds are equal parts, other seeds other ones."""
    assert np.array_equal(alone(CLASSES, 0.2, 1)[1], alone(CLASSES, 0.2, 1)[1])
    assert not np.array_equal(alone(CLASSES, 0.2, 1)[1], alone(CLASSES, 0.2, 2)[1])
    rows = [low_shot(CLASSES, shots=4, draw=draw) for draw in (0, 0, 1)]
    assert rows[0].tolist() == rows[1].tolist() == sorted(rows[0].tolist())
    assert rows[0].tolist() != rows[2].tolist()


def test_each_image_has_its_place():
    """When a twentieth is added, one or two in a hundred of the old images change sides; another seed, other images."""
    names, classes = np.array([f"image {i}" for i in range(1050)]), np.arange(1050) % 5
    changed = []
    for seed in range(5):
        old = np.sort(np.random.default_rng(seed).permutation(1050)[:1000])
        before = set(names[old][hold_out(classes[old], names[old], 0.2, seed)[1]])
        after = set(names[hold_out(classes, names, 0.2, seed)[1]]) & set(names[old])
        changed.append(len(before ^ after) / 1000)
    assert np.mean(changed) < 0.015 and max(changed) < 0.03


def test_copies_stay_together():
    """Of fifty pictures, each there twice, none is on both sides, and the share is kept."""
    names = np.array([f"image {i % 50}" for i in range(100)])
    kept, held = hold_out(np.arange(100) % 50 % 2, names, 0.2, 0)
    assert not set(names[kept]) & set(names[held]) and len(held) == 20


def test_low_shot_subsets():
    """So many images of every class, or a share of each, never none of it; at most what a class has, if asked."""
    assert counts(low_shot(CLASSES, shots=4)) == {0: 4, 1: 4, 2: 4}
    assert counts(low_shot(CLASSES, fraction=0.5)) == {0: 7, 1: 6, 2: 6}
    assert counts(low_shot(CLASSES, fraction=0.01)) == {0: 1, 1: 1, 2: 1}
    assert counts(low_shot(CLASSES, shots=14, at_most=True)) == {0: 14, 1: 13, 2: 13}
    assert [rows.tolist() for rows in rows_by_class(np.array(["b", "a", "b"]))] == [[1], [0, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either shots"),
        ({"shots": 1, "fraction": 0.5}, "either shots"),
        ({"shots": 0}, "at least 1"),
        ({"fraction": 1.5}, "at most 1"),
        ({"shots": 14}, "'band 1' has 13 images, fewer than shots=14"),
    ],
)
def test_impossible_subsets(options, message):
    """What cannot be drawn is named, with the class."""
    with pytest.raises(ValueError, match=message):
        low_shot(CLASSES, **options, names=("band 0", "band 1", "band 2"))
