"""One score as it is shown anywhere: value, interval, and what sets it apart from the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from attentive_probes.problems import PRIMARY


class Score(NamedTuple):
    """A metric of one head or reference on one split.

    Args:
        metric: Its name.
        value: Its value.
        interval: Its 95% interval `(low, high)`; `None` where it is not known.
        difference: Mean, low and high of the difference to the baseline; `None` where nothing was compared.
        p: P-value of no difference, corrected for the number of comparisons (Holm).
    """

    metric: str
    value: float
    interval: tuple[float, float] | None = None
    difference: tuple[float, float, float] | None = None
    p: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, of length 0 where it is not known; it holds the value."""
        low, high = self.interval or (self.value, self.value)
        return min(low, self.value), max(high, self.value)

    @property
    def errors(self) -> tuple[float, float]:
        """How far the interval reaches below and above the value, as error bars take it."""
        low, high = self.bounds
        return self.value - low, high - self.value

    @property
    def text(self) -> str:
        """Value and interval: `91.20 [90.10, 92.30]`."""
        return f"{self.value:.2f}{self.interval_text}"

    @property
    def interval_text(self) -> str:
        """The interval behind a space, if it is known."""
        return "" if self.interval is None else " [{:.2f}, {:.2f}]".format(*self.interval)

    @property
    def difference_text(self) -> str:
        """Difference to the baseline: `+1.20 [+0.10, +2.30]`."""
        return "" if self.difference is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*self.difference)

    @property
    def p_text(self) -> str:
        """The p-value with two digits."""
        return "" if self.p is None else f"{self.p:.2g}"


def score_in(metrics: Mapping[str, Any] | None, metric: str | None) -> Score | None:
    """A metric of a scored split with all that is known of it; `None` where it has no finite value.

    Args:
        metrics: What `HeadResult.test` holds.
        metric: Its name.
    """
    if metrics is None or metric is None:
        return None
    value = metrics.get(metric)
    if value is None or not math.isfinite(value):
        return None
    interval, difference = (metrics.get(f"{metric}_{what}") for what in ("interval", "difference"))
    return Score(
        metric,
        value,
        None if interval is None else tuple(interval),
        None if difference is None else tuple(difference),
        metrics.get(f"{metric}_p_holm"),
    )


def primary_metric(metrics: Mapping[str, Any] | None) -> str | None:
    """The metric that stands for a split in tables; `None` for one that was not scored."""
    return next((name for name in PRIMARY if metrics and name in metrics), None)
