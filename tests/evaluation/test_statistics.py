import numpy as np
import pytest
from scipy.stats import binomtest

from attentive_probes.evaluation.statistics import mean_interval, paired_difference


def test_interval_of_an_accuracy():
    """Close to the exact binomial interval, and the same on every call."""
    correct = np.arange(1000) < 870
    interval = mean_interval(correct)
    exact = binomtest(870, 1000).proportion_ci(method="wilson")
    assert interval == pytest.approx((exact.low, exact.high), abs=3e-3)
    assert interval == mean_interval(correct)


def test_pairing_narrows_the_interval():
    """Two heads that fail on the same hard images differ surely, though their intervals overlap."""
    hard = np.arange(1000) % 5 == 0
    first, second = ~hard, ~hard & (np.arange(1000) % 50 != 1)
    mean, low, high = paired_difference(first, second)
    assert mean == pytest.approx(0.02)
    assert 0 < low < mean < high
    assert mean_interval(first)[0] < mean_interval(second)[1]
    assert paired_difference(first, first) == (0, 0, 0)


def test_wrong_input():
    """Different lengths and too few values are refused."""
    with pytest.raises(ValueError, match="the same images"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="at least two"):
        mean_interval(np.ones(1))
