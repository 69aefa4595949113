"""What more images would bring: a power law through the accuracies on nested subsets, with an interval, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attentive_probes.scores.resampling import FEW_GROUPS
from attentive_probes.scores.statistics import CONFIDENCE, clustered_error, num_draws

DRAWS = 200
EXPONENTS = np.linspace(0.1, 2.0, 39)


@dataclass(frozen=True)
class LearningCurve:
    """Accuracies by number of training images, and where they are heading.

    Args:
        sizes: Numbers of training images, rising.
        accuracies: In percent, of images that were not learned from.
        expected: Number of images beyond these -> accuracy and its interval, NaN where that is not known.
        check: What the law through all but the largest size says of that, and its interval; `None` below four sizes,
            and where the interval is not known.
    """

    sizes: tuple[int, ...]
    accuracies: tuple[float, ...]
    expected: dict[int, tuple[float, float, float]]
    check: tuple[float, float, float] | None = None

    @property
    def is_right(self) -> bool | None:
        """Whether the largest size lies in the interval that smaller ones predicted; `None` if that was not tried."""
        return None if self.check is None else self.check[1] <= self.accuracies[-1] <= self.check[2]


def learning_curve(
    correct: Mapping[int, np.ndarray], beyond: tuple[int, ...], groups: np.ndarray | None = None
) -> LearningCurve:
    """Fit errors as `a + b n^-c` to what was right at several numbers of images, and go on with it.

    The interval is that of draws of the judged images, or of their groups, the same in every size, with the law fitted
    to each; not known, NaN, of fewer than ten groups.

    Args:
        correct: Number of training images -> which of the same judged images were right, `(N,)`.
        beyond: Numbers of images to foretell.
        groups: Group `(N,)` of judged images that are no independent draws.

    Raises:
        ValueError: If there are fewer than three sizes.
    """
    sizes = tuple(sorted(correct))
    if len(sizes) < 3:
        raise ValueError(f"A learning curve needs three sizes at least, got {list(sizes)}.")
    errors = 1 - np.stack([np.asarray(correct[size], float) for size in sizes])
    expected = {size: _predicted(np.array(sizes), errors, size, groups) for size in beyond}
    check = _predicted(np.array(sizes[:-1]), errors[:-1], sizes[-1], groups) if len(sizes) > 3 else None
    check = check if check is not None and np.isfinite(check[1]) else None
    return LearningCurve(sizes, tuple(100 * (1 - errors.mean(1))), expected, check)


def _predicted(
    sizes: np.ndarray, errors: np.ndarray, size: int, groups: np.ndarray | None
) -> tuple[float, float, float]:
    rng, count = np.random.default_rng(0), num_draws(errors.shape[1], groups)
    found = 100 * (1 - _law(sizes, errors.mean(1), size))
    if groups is not None and count < FEW_GROUPS:
        return found, np.nan, np.nan
    sums, members = errors, np.ones(count)
    if groups is not None:
        _, places = np.unique(groups, return_inverse=True)
        sums, members = np.stack([np.bincount(places, row) for row in errors]), np.bincount(places).astype(float)
    draws = [rng.integers(0, count, count) for _ in range(DRAWS)]
    drawn = [sums[:, rows].sum(1) / members[rows].sum() for rows in draws]
    values = np.array([found, *(100 * (1 - _law(sizes, one, size)) for one in drawn)])
    noise = 100 * clustered_error(errors[-1], groups)
    spread = values[1:] + rng.normal(0, noise, DRAWS)  # what is predicted is an accuracy on as many images
    low, high = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(values[0]), float(low), float(high)


def _law(sizes: np.ndarray, errors: np.ndarray, size: int) -> float:
    """The error at a size by the law that fits best, which neither falls below zero nor rises with more images."""
    best, found = np.inf, float(errors[-1])
    for exponent in EXPONENTS:
        x = sizes**-exponent
        slope = max(0.0, float(np.cov(x, errors, bias=True)[0, 1] / x.var()))
        level = float(errors.mean() - slope * x.mean())
        if level < 0:
            level, slope = 0.0, float((x * errors).sum() / (x * x).sum())
        loss = float(((level + slope * x - errors) ** 2).sum())
        if loss < best:
            best, found = loss, level + slope * float(size) ** -exponent
    return min(max(found, 0.0), 1.0)
