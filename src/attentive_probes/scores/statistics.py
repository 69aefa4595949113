"""How sure a number is: intervals and paired comparisons over the images of a split, 95% throughout."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Comparison(NamedTuple):
    """Mean difference with its interval, and the p-value of there being none."""

    mean: float
    low: float
    high: float
    p: float


def proportion_interval(count: int, num_images: int) -> tuple[float, float]:
    """Wilson interval of a proportion: never empty, also where all images or none are counted.

    "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the American Statistical
    Association 22, 1927. Written out, for scipy.stats takes a second to import.

    Args:
        count: Images that are counted.
        num_images: Number of images N.

    Raises:
        ValueError: If there is no image.
    """
    if num_images < 1:
        raise ValueError("There is no image, of which a proportion could be known.")
    share, weight = count / num_images, Z * Z / num_images
    centre = (share + weight / 2) / (1 + weight)
    half = Z * (share * (1 - share) / num_images + weight / (4 * num_images)) ** 0.5 / (1 + weight)
    return 0.0 if count == 0 else centre - half, 1.0 if count == num_images else centre + half


def compare_proportions(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Difference of two proportions over the same images, `(N,)` truth values each.

    Newcombe's interval for paired proportions (method 10 in Statistics in Medicine 17, 1998, 2635-2650), and the exact
    test of McNemar on the images on which the two disagree.

    Raises:
        ValueError: If the lengths differ.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if len(first) != len(second):
        raise ValueError(f"A paired comparison needs the same images, got {len(first)} and {len(second)}.")
    total = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    gains, losses = int((first & ~second).sum()), int((~first & second).sum())
    p_first, p_second = first.mean(), second.mean()
    low_first, high_first = proportion_interval(int(first.sum()), total)
    low_second, high_second = proportion_interval(int(second.sum()), total)
    phi = _correlation(both, gains, losses, neither)
    below = _root((p_first - low_first, high_second - p_second), phi)
    above = _root((high_first - p_first, p_second - low_second), phi)
    mean = (gains - losses) / total
    return Comparison(mean, mean - below, mean + above, _exact_p(gains, losses))


def _exact_p(gains: int, losses: int) -> float:
    """McNemar's exact p-value of so many gains against losses."""
    from scipy.stats import binomtest  # here, because it takes long to import

    return float(binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0


def _correlation(both: int, gains: int, losses: int, neither: int) -> float:
    """Phi of a 2 x 2 table, with Newcombe's continuity correction; 0 where a margin is empty."""
    margins = float(both + gains) * (losses + neither) * (both + losses) * (gains + neither)
    if margins == 0:
        return 0.0
    cross, half = both * neither - gains * losses, (both + gains + losses + neither) / 2
    return (max(cross - half, 0.0) if cross > 0 else cross) / margins**0.5


def _root(sides: tuple[float, float], phi: float) -> float:
    a, b = sides
    return max(a * a - 2 * phi * a * b + b * b, 0.0) ** 0.5


def clustered_error(values: np.ndarray, groups: np.ndarray | None = None, strata: np.ndarray | None = None) -> float:
    """Standard error of the mean of values `(N,)`: independent draws, or so between groups `(N,)` alone.

    Of groups, the error of a ratio: sums of what lies above the mean, group by group. Infinite for a single draw.

    Args:
        values: `(N,)`.
        groups: `(N,)`, what each belongs to; `None` lets each be its own.
        strata: `(N,)`, such as classes whose sizes are fixed: what lies above the mean is taken within each.
    """
    centred = values - (values.mean() if strata is None else _means(values, strata))
    if groups is not None:
        _, places = np.unique(groups, return_inverse=True)
        centred = np.bincount(places, centred)
    count = len(centred)
    if count < 2:
        return np.inf
    return float(np.sqrt((centred**2).sum() * count / (count - 1)) / len(values))


def _means(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """The mean of the stratum of each value, `(N,)`."""
    _, places = np.unique(strata, return_inverse=True)
    return (np.bincount(places, values) / np.bincount(places))[places]


def num_draws(num_images: int, groups: np.ndarray | None) -> int:
    """How many independent draws images are: their number, or that of their groups."""
    return num_images if groups is None else len(np.unique(groups))


def reach(count: int) -> float:
    """How many standard errors an interval reaches from a mean of so many draws: the quantile of Student's t."""
    from scipy.stats import t  # here, because it takes long to import

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1))


def clustered_interval(correct: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float] | None:
    """Wilson interval of a share of images `(N,)`, with as many images as they are worth if groups are alike.

    The number of images over the design effect: how much larger the variance between groups `(N,)` is than that of as
    many independent images; with the quantile of Student's t for the number of groups (Korn and Graubard, Survey
    Methodology 24, 1998). `None`, not known, of a single group.
    """
    count, share = len(correct), float(np.mean(correct))
    if groups is None:
        return proportion_interval(int(np.sum(correct)), count)
    clusters = num_draws(count, groups)
    if clusters < 2:
        return None
    worth, z = float(clusters), reach(clusters)
    if 0 < share < 1:
        alone = share * (1 - share) / count
        worth = count / max(1.0, clustered_error(np.asarray(correct, float), groups) ** 2 / alone)
    weight = z * z / worth
    centre = (share + weight / 2) / (1 + weight)
    half = z * (share * (1 - share) / worth + weight / (4 * worth)) ** 0.5 / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def compare_clustered(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Comparison | None:
    """Difference of two shares over the same images, whose errors are alike within groups, all `(N,)`.

    By Student's t with one degree less than there are groups; `None`, not known, of a single group.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    clusters = num_draws(len(difference), groups)
    if clusters < 2:
        return None
    mean, error = float(difference.mean()), clustered_error(difference, groups)
    half = reach(clusters) * error
    return Comparison(mean, mean - half, mean + half, student_p(mean, error, clusters))


def compare_shares(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None) -> Comparison | None:
    """Difference of two shares over the same images `(N,)`: the one door to both ways, with groups and without."""
    if groups is None:
        return compare_proportions(first, second)
    return compare_clustered(first, second, groups)


def student_p(difference: float, error: float, count: int) -> float:
    """Two-sided p-value of a mean difference of so many draws, given its standard error, by Student's t."""
    from scipy.stats import t  # here, because it takes long to import

    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * t.sf(abs(difference) / error, count - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by the method of Holm: none is rejected by chance alone in 95% of runs."""
    found, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = largest
    return found
