import numpy as np
import pytest

from attentive_probes.data.splitting.folds import folds_of


def test_folds_are_even_in_every_class():
    """Every image is in one fold, classes and folds are even, another seed draws another way."""
    classes = np.repeat([0, 1, 2], [20, 7, 3])
    folds = folds_of(classes, 5, seed=0)
    assert sorted(np.bincount(folds)) == [6] * 5
    for label in range(3):
        counts = np.bincount(folds[classes == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (folds == folds_of(classes, 5, seed=0)).all() and (folds != folds_of(classes, 5, seed=1)).any()


def test_groups_stay_whole():
    """Groups of uneven sizes are never divided, and every fold gets some of every class."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    classes = np.arange(40)[groups] % 3
    folds = folds_of(classes, 4, 0, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(40))
    for label in range(3):
        counts = np.bincount(folds[classes == label], minlength=4) / (classes == label).sum()
        assert counts.min() > 0.15 and counts.max() < 0.35


@pytest.mark.parametrize(("folds", "groups"), [(1, None), (9, None), (3, np.zeros(8))])
def test_too_many_folds(folds, groups):
    """Folds need images, or groups, of their own."""
    with pytest.raises(ValueError, match=r"selection.folds is"):
        folds_of(np.zeros(8), folds, 0, groups)
