"""What more images would bring: a power law through the accuracies on nested subsets, with an interval, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attentive_probes.evaluation.statistics import CONFIDENCE

DRAWS = 200
EXPONENTS = np.linspace(0.1, 2.0, 39)


@dataclass(frozen=True)
class LearningCurve:
    """Accuracies by number of training images, and where they are heading.

    Args:
        sizes: Numbers of training images, rising.
        accuracies: In percent, of images that were not learned from.
        expected: Number of images beyond these -> accuracy and its interval.
        check: What the law through all but the largest size says of that, and its interval; `None` below four sizes.
    """

    sizes: tuple[int, ...]
    accuracies: tuple[float, ...]
    expected: dict[int, tuple[float, float, float]]
    check: tuple[float, float, float] | None = None

    @property
    def is_right(self) -> bool | None:
        """Whether the largest size lies in the interval that smaller ones foretold; `None` if that was not tried."""
        return None if self.check is None else self.check[1] <= self.accuracies[-1] <= self.check[2]


def learning_curve(correct: Mapping[int, np.ndarray], beyond: tuple[int, ...]) -> LearningCurve:
    """Fit errors as `a + b n^-c` to what was right at several numbers of images, and go on with it.

    The interval is that of draws of the judged images, the same in every size, with the law fitted to each.

    Args:
        correct: Number of training images -> which of the same judged images were right, `(N,)`.
        beyond: Numbers of images to foretell.

    Raises:
        ValueError: If there are fewer than three sizes.
    """
    sizes = tuple(sorted(correct))
    if len(sizes) < 3:
        raise ValueError(f"A learning curve needs three sizes at least, got {list(sizes)}.")
    errors = 1 - np.stack([np.asarray(correct[size], float) for size in sizes])
    expected = {size: _foretold(np.array(sizes), errors, size) for size in beyond}
    check = _foretold(np.array(sizes[:-1]), errors[:-1], sizes[-1]) if len(sizes) > 3 else None
    return LearningCurve(sizes, tuple(100 * (1 - errors.mean(1))), expected, check)


def _foretold(sizes: np.ndarray, errors: np.ndarray, size: int) -> tuple[float, float, float]:
    rng, count = np.random.default_rng(0), errors.shape[1]
    drawn = [errors[:, rng.integers(0, count, count)].mean(1) for _ in range(DRAWS)]
    values = np.array([100 * (1 - _law(sizes, one, size)) for one in [errors.mean(1), *drawn]])
    noise = 100 * np.sqrt(errors[-1].mean() * (1 - errors[-1].mean()) / count)
    spread = values[1:] + rng.normal(0, noise, DRAWS)  # what is foretold is an accuracy on as many images
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
