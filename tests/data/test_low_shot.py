from collections import Counter

import pytest
from datasets import Dataset

from attentive_probes.data.low_shot import subset
from tiny import image_dataset

DATA = image_dataset(40)  # classes of 14, 13 and 13 images


def test_shots():
    """So many images of every class, in the order of the split; another draw is another subset."""
    few = subset(DATA, "label", shots=4)
    assert Counter(few["label"]) == {0: 4, 1: 4, 2: 4}
    assert few.features == DATA.features
    rows = [
        subset(Dataset.from_dict({"label": DATA["label"], "row": range(40)}), "label", shots=4, draw=d)
        for d in (0, 0, 1)
    ]
    assert rows[0]["row"][:] == rows[1]["row"][:] == sorted(rows[0]["row"])
    assert rows[0]["row"][:] != rows[2]["row"][:]


def test_fraction():
    """A share of each class, never none of it; labels that are no classes are drawn from as a whole."""
    assert Counter(subset(DATA, "label", fraction=0.5)["label"]) == {0: 7, 1: 6, 2: 6}
    assert Counter(subset(DATA, "label", fraction=0.01)["label"]) == {0: 1, 1: 1, 2: 1}
    assert len(subset(Dataset.from_dict({"label": [0.5, 1.5, 2.5, 3.5]}), "label", fraction=0.5)) == 2
    assert len(subset(Dataset.from_dict({"label": ["a", "a", "b", "b"]}), "label", shots=1)) == 2


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
        subset(DATA, "label", **options)
