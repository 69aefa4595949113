"""Which epoch of each head is kept: the one with the best value on the validation split."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from attentive_probes.checks import unknown_name
from attentive_probes.evaluation.runs.families import cost, settings_of
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.problems import find_problem
from attentive_probes.training.state.checkpoint import HeadStates

logger = logging.getLogger(__name__)


def selection_metric(name: str | None, problem_type: str) -> str:
    """The metric that selects epoch and head: `name`, or by default `top1` for single labels and `loss` otherwise.

    Raises:
        ValueError: If the problem has no such metric.
    """
    problem = find_problem(problem_type)
    valid = (*problem.metrics, "loss")
    if name is not None and name not in valid:
        raise ValueError(unknown_name("selection_metric", name, valid))
    return name or problem.selection


class EpochSelection:
    """Follows every head over the epochs and keeps a copy of its best state.

    Args:
        results: The entries to fill, one per head.
        metric: What is compared on the validation split.
        is_last: Whether the last epoch is kept instead of the best one.

    Attributes:
        states: Name -> tensors of the head at its best epoch.
    """

    def __init__(self, results: list[HeadResult], metric: str, is_last: bool = False):
        self.results = {result.name: result for result in results}
        self.metric, self.is_last = metric, is_last
        self.states: HeadStates = {}

    def update(
        self,
        epoch: int,
        seconds: float,
        learned: Callable[[str], dict[str, Tensor]],
        train_losses: Mapping[str, float],
        validation: Mapping[str, Mapping[str, float]],
        diverged: Mapping[str, int] | None = None,
        intervals: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Note an epoch.

        Args:
            epoch: Its number, from 1.
            seconds: Time from the start of the run to its end.
            learned: Copies the tensors of a head.
            train_losses: Name -> mean training loss of each head that took part.
            validation: Name -> metrics, of the heads whose scores are finite numbers.
            diverged: Name -> step at which a head diverged; its epoch has no metrics.
            intervals: Name -> interval of the accuracy on validation, where it is known.
        """
        for name, loss in train_losses.items():
            result, step = self.results[name], (diverged or {}).get(name)
            metrics = dict(validation.get(name, {}))
            if step is not None or not (math.isfinite(loss) and math.isfinite(metrics.get("loss", math.nan))):
                metrics, result.diverged = {}, step or 0
                when = f"at step {step}" if step else f"in epoch {epoch}"
                logger.warning("Head %s diverged %s; lower its learning rate.", name, when)
            result.history.append({"epoch": epoch, "train_loss": loss, **metrics})
            if metrics and (self.is_last or not result.best_epoch or self._better(metrics, result.validation)):
                result.validation, result.best_epoch, result.seconds = metrics, epoch, seconds
                result.validation_interval = (intervals or {}).get(name)
                self.states[name] = learned(name)
            elif name not in self.states:
                self.states[name] = learned(name)

    def alive(self, names: Collection[str]) -> set[str]:
        """Those of some heads that did not diverge.

        Raises:
            ValueError: If no head has a single good epoch.
        """
        found = {name for name in names if self.results[name].diverged is None}
        if not found and not any(result.best_epoch for result in self.results.values()):
            raise ValueError(
                f"All heads diverged: {sorted(self.results)}. Lower the learning rates; if that does not help, the "
                "backbone's tokens are no finite numbers in this precision."
            )
        return found

    def better_half(self, names: Collection[str]) -> set[str]:
        """The better half of some heads, rounded up, by their best validation value so far; ties go to the first.

        Heads that differ by their seed alone stay or go together, by their mean.
        """
        settings = settings_of([self.results[name] for name in self.results if name in names], self.metric)
        ranked = sorted(settings, key=lambda setting: cost(setting.validation, self.metric))
        kept = {name for setting in ranked[: (len(ranked) + 1) // 2] for name in setting.names}
        dropped = ", ".join(sorted(set(names) - kept))
        logger.info("Successive halving: %d heads train on; dropped %s.", len(kept), dropped or "none")
        return kept

    def restore(self, results: list[HeadResult], states: HeadStates) -> None:
        """Go on from entries and states of an earlier run."""
        self.results = {result.name: result for result in results}
        self.states = states

    def _better(self, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
        return cost(new[self.metric], self.metric) < cost(old[self.metric], self.metric)
