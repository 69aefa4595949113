import numpy as np
import pytest

from attentive_probes.choosing.learning_curve import learning_curve


def errors_at(size):
    return 0.1 + 1.2 * size**-0.5


def drawn(sizes, count=4000, seed=0):
    """Which of the same images are right at every size, by how hard each is."""
    hard = np.random.default_rng(seed).random(count)
    return {size: hard > errors_at(size) for size in sizes}


def test_a_power_law_is_found_and_checked():
    """Twice and four times the images are predicted within the interval, and so was the largest size."""
    curve = learning_curve(drawn((50, 100, 200, 400)), (800, 1600))
    for size, (value, low, high) in curve.expected.items():
        assert low < 100 * (1 - errors_at(size)) < high
        assert value == pytest.approx(100 * (1 - errors_at(size)), abs=2)
    assert curve.is_right and curve.accuracies == tuple(sorted(curve.accuracies))


def test_no_law_says_less():
    """Accuracies that do not rise are not predicted to rise; two sizes are too few."""
    flat = {size: np.arange(1000) % 4 > 0 for size in (50, 100, 200)}
    assert learning_curve(flat, (400,)).expected[400][0] == pytest.approx(75, abs=0.5)
    with pytest.raises(ValueError, match="three sizes"):
        learning_curve(drawn((50, 100)), (200,))
