"""How sure a number is: intervals and paired comparisons over the images of a split, 95% throughout."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 1000
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


def bootstrap_values(
    metric: Callable[[np.ndarray], float], num_images: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Values `(R,)` of a metric on R = 1000 draws of images, or of whole groups, the same draws on every call.

    Args:
        metric: Takes the rows of a draw, with replacement.
        num_images: Number of images N.
        groups: Group `(N,)` of each image; `None` draws single ones.
    """
    from scipy.stats import bootstrap

    members = None if groups is None else _members(groups)
    count = num_images if members is None else len(members)
    if count < 2:
        return np.full(NUM_RESAMPLES, np.nan)

    def of_draw(drawn: np.ndarray) -> float:
        return metric(drawn if members is None else np.concatenate([members[group] for group in drawn]))

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws that are all alike, which `percentile_interval` knows
        found = bootstrap(
            (np.arange(count),),
            of_draw,
            n_resamples=NUM_RESAMPLES,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    return found.bootstrap_distribution


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """The rows of each group."""
    _, places = np.unique(groups, return_inverse=True)
    order = np.argsort(places, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(places[order])) + 1)


def clustered_error(values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Standard error of the mean of values `(N,)`: independent draws, or so between groups `(N,)` alone.

    Of groups, the error of a ratio: sums of what lies above the mean, group by group.
    """
    centred = values - values.mean()
    if groups is not None:
        _, places = np.unique(groups, return_inverse=True)
        centred = np.bincount(places, centred)
    count = len(centred)
    return float(np.sqrt((centred**2).sum() * count / max(count - 1, 1)) / len(values))


def clustered_interval(correct: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Wilson interval of a share of images `(N,)`, with as many images as they are worth if groups are alike.

    The number of images over the design effect: how much larger the variance between groups `(N,)` is than that of as
    many independent images (Korn and Graubard, Survey Methodology 24, 1998).
    """
    count, share = len(correct), float(np.mean(correct))
    if groups is None or share in (0.0, 1.0):
        count = count if groups is None else len(np.unique(groups))
        return proportion_interval(round(share * count), count)
    alone = share * (1 - share) / count
    effect = max(1.0, clustered_error(np.asarray(correct, float), groups) ** 2 / alone)
    worth = max(1.0, count / effect)
    weight = Z * Z / worth
    centre = (share + weight / 2) / (1 + weight)
    half = Z * (share * (1 - share) / worth + weight / (4 * worth)) ** 0.5 / (1 + weight)
    return centre - half, centre + half


def compare_clustered(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Comparison:
    """Difference of two shares over the same images, whose errors are alike within groups, all `(N,)`."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    mean, error = float(difference.mean()), clustered_error(difference, groups)
    return Comparison(mean, mean - Z * error, mean + Z * error, normal_p(mean, error))


def normal_p(difference: float, error: float) -> float:
    """Two-sided p-value of a difference of so many standard errors."""
    from scipy.stats import norm  # here, because it takes long to import

    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * norm.sf(abs(difference) / error))


def percentile_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Percentile interval of bootstrap values `(R,)`; `None` if they say nothing, being all the same or no numbers."""
    values = values[np.isfinite(values)]
    if len(values) < 2 or values.min() == values.max():
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def compare_bootstrapped(mean: float, first: np.ndarray, second: np.ndarray) -> Comparison | None:
    """Difference of a metric between two heads from their values `(R,)` on the same draws; `None` as above.

    The p-value is twice the share of draws on the other side of zero.
    """
    difference = first - second
    interval = percentile_interval(difference)
    if interval is None:
        return None
    difference = difference[np.isfinite(difference)]
    beyond = min((difference <= 0).sum(), (difference >= 0).sum())
    return Comparison(mean, *interval, min(1.0, 2 * float(beyond + 1) / (len(difference) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by the method of Holm: none is rejected by chance alone in 95% of runs."""
    found, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = largest
    return found
