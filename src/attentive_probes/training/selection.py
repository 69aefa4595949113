"""Which epoch of each head is kept: the one with the best value on the validation split."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from attentive_probes.evaluation.metrics import METRICS_OF, SMALLER_IS_BETTER
from attentive_probes.evaluation.results import HeadResult
from attentive_probes.naming import unknown_name
from attentive_probes.training.checkpoint import HeadStates

logger = logging.getLogger(__name__)


def selection_metric(name: str | None, problem_type: str) -> str:
    """The metric that selects epoch and head: `name`, or by default `top1` for single labels and `loss` otherwise.

    Raises:
        ValueError: If the problem has no such metric.
    """
    valid = (*METRICS_OF[problem_type], "loss")
    if name is not None and name not in valid:
        raise ValueError(unknown_name("selection_metric", name, valid))
    return name or ("top1" if "top1" in valid else "loss")


class EpochSelection:
    """Follows every head over the epochs and keeps a copy of its best state.

    Args:
        results: The entries to fill, one per head.
        metric: What is compared on the validation split.

    Attributes:
        states: Name -> tensors of the head at its best epoch.
    """

    def __init__(self, results: list[HeadResult], metric: str):
        self.results = {result.name: result for result in results}
        self.metric = metric
        self.states: HeadStates = {}

    def update(
        self,
        epoch: int,
        seconds: float,
        learned: Callable[[str], dict[str, Tensor]],
        train_losses: Mapping[str, float],
        validation: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Note an epoch (from 1) that ended `seconds` after the start of the run; `learned` copies a head's tensors."""
        for name, result in self.results.items():
            if name not in validation:
                continue
            metrics = dict(validation[name])
            result.history.append({"epoch": epoch, "train_loss": train_losses[name], **metrics})
            if not math.isfinite(train_losses[name]):
                logger.warning("Head %s diverged in epoch %d; lower its learning rate.", name, epoch)
            if name not in self.states or self._better(metrics, result.validation):
                result.validation, result.best_epoch, result.seconds = metrics, epoch, seconds
                self.states[name] = learned(name)

    def better_half(self, names: Collection[str]) -> set[str]:
        """The half of some heads, rounded up, whose best validation value so far is better; ties go to the first."""
        sign = 1 if self.metric in SMALLER_IS_BETTER else -1

        def rank(name: str) -> float:
            value = self.results[name].validation[self.metric]
            return math.inf if math.isnan(value) else sign * value

        ranked = sorted((name for name in self.results if name in names), key=rank)
        return set(ranked[: (len(ranked) + 1) // 2])

    def restore(self, results: list[HeadResult], states: HeadStates) -> None:
        """Go on from entries and states of an earlier run."""
        self.results = {result.name: result for result in results}
        self.states = states

    def _better(self, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
        if math.isnan(old[self.metric]):
            return not math.isnan(new[self.metric])
        if self.metric in SMALLER_IS_BETTER:
            return new[self.metric] < old[self.metric]
        return new[self.metric] > old[self.metric]
