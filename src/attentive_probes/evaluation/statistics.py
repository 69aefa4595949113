"""How sure a number is: intervals and paired comparisons, by the bootstrap."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest, bootstrap

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean of `(N,)` values, over images, with a fixed seed.

    Raises:
        ValueError: If there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least two values, got {len(values)}.")
    result = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def proportion_interval(percent: float, num_images: int) -> tuple[float, float]:
    """95% Wilson interval, in percent, of an accuracy in percent over so many images."""
    found = binomtest(round(percent / 100 * num_images), num_images).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Mean of `first - second` over the same N images, with its 95% interval `(mean, low, high)`.

    Pairing removes the spread that both share because some images are simply harder.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"A paired comparison needs the same images, got {len(first)} and {len(second)}.")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return float(difference.mean()), *mean_interval(difference)
