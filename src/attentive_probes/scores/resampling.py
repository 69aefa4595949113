"""How sure a metric is that is no mean over images: draws of images or of their groups, 95% throughout."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attentive_probes.scores.statistics import CONFIDENCE, Comparison, num_draws, reach, student_p

NUM_RESAMPLES = 1000
FEW_GROUPS = 10  # below which draws of whole groups are too alike
RESOLVED = 10  # draws beyond zero, below which their share is too coarse for a p-value


class Resampled(NamedTuple):
    """Values of a metric on other draws of the images.

    Args:
        values: `(R,)`, on draws with replacement; or of few groups `(G,)`, the jackknife's: what each group by itself
            would have the metric be, `G m - (G - 1) m_without_it`.
        is_jackknife: Whether they are the latter.
    """

    values: np.ndarray
    is_jackknife: bool = False


def resample(metric: Callable[[np.ndarray], float], num_images: int, groups: np.ndarray | None = None) -> Resampled:
    """Values of a metric on R = 1000 draws of images, or of whole groups, the same draws on every call.

    Of fewer than ten groups draws are too alike: their values are the jackknife's, by leaving out each.

    Args:
        metric: Takes the rows of a draw, with replacement.
        num_images: Number of images N.
        groups: Group `(N,)` of each image; `None` draws single ones.
    """
    from scipy.stats import bootstrap

    count = num_draws(num_images, groups)
    if count < 2:
        return Resampled(np.full(2, np.nan), groups is not None)
    members = None if groups is None else _members(groups)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of draws that are all alike, which `interval_of` knows
        if members is not None and count < FEW_GROUPS:
            whole = metric(np.arange(num_images))
            without = [metric(np.concatenate(members[:i] + members[i + 1 :])) for i in range(count)]
            return Resampled(count * whole - (count - 1) * np.array(without), is_jackknife=True)

        def of_draw(drawn: np.ndarray) -> float:
            return metric(drawn if members is None else np.concatenate([members[group] for group in drawn]))

        found = bootstrap(
            (np.arange(count),),
            of_draw,
            n_resamples=NUM_RESAMPLES,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    return Resampled(found.bootstrap_distribution)


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """The rows of each group."""
    _, places = np.unique(groups, return_inverse=True)
    order = np.argsort(places, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(places[order])) + 1)


def interval_of(drawn: Resampled) -> tuple[float, float] | None:
    """Interval of a metric from its values on draws; `None` if they say nothing, being all the same or no numbers."""
    values = drawn.values[np.isfinite(drawn.values)]
    if len(values) < 2 or values.min() == values.max() or (drawn.is_jackknife and len(values) < len(drawn.values)):
        return None
    if drawn.is_jackknife:
        half = reach(len(values)) * float(values.std(ddof=1)) / len(values) ** 0.5
        return float(values.mean()) - half, float(values.mean()) + half
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def compare_resampled(mean: float, first: Resampled, second: Resampled) -> Comparison | None:
    """Difference of a metric between two heads from their values on the same draws; `None` as above.

    The p-value is twice the share of draws on the other side of zero; where these are too few to count, that of as many
    standard deviations by the normal distribution; of few groups by Student's t.
    """
    difference = Resampled(first.values - second.values, first.is_jackknife)
    interval = interval_of(difference)
    if interval is None:
        return None
    values = difference.values[np.isfinite(difference.values)]
    if difference.is_jackknife:
        error = float(values.std(ddof=1)) / len(values) ** 0.5
        return Comparison(mean, *interval, student_p(float(values.mean()), error, len(values)))
    beyond = int(min((values <= 0).sum(), (values >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(values) + 1))
    if beyond < RESOLVED:
        p = min(p, _normal_p(mean / float(values.std(ddof=1))))
    return Comparison(mean, *interval, p)


def _normal_p(z: float) -> float:
    from scipy.stats import norm  # here, because it takes long to import

    return float(2 * norm.sf(abs(z)))
