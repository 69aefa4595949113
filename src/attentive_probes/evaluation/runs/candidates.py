"""Choosing among candidates by images that none of them learned from: how sure is it, and would a smaller one do?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attentive_probes.evaluation.runs.all_pairs import told_apart
from attentive_probes.scores.statistics import clustered_error

AS_SMALL = 4  # times as many parameters, up to which a head is as small as another one
SURE = 0.05  # p-value, corrected, below which two candidates differ


@dataclass(frozen=True)
class Candidate:
    """One way to make a classifier, and on which images it was right.

    Args:
        name: Its name.
        family: Name of what it is one setting of.
        parameters: Number of its trained parameters.
        correct: Per seed and image, whether it was right, of images that it did not learn from: bool `(S, N)`.
        can_win: Whether it may be selected; k-NN cannot be saved as a probe.
        heads: Names of the heads that it is, one per seed; none for a reference.
        settings: The setting of a reference.
    """

    name: str
    family: str
    parameters: int
    correct: np.ndarray
    can_win: bool = True
    heads: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def by_image(self) -> np.ndarray:
        """Share of the seeds that were right, per image `(N,)`."""
        return self.correct.mean(0)


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate among the others.

    Args:
        name: Its name.
        family: Its family.
        parameters: Its trained parameters.
        accuracy: Mean over images, in percent; weighted, where classes count the same.
        error: Standard error of that, over images or groups of them.
        deviation: Standard deviation over seeds; 0 for a single one.
        behind: How far it lies behind the best, in percent.
        behind_error: Standard error of that, paired by image.
        p: P-value of being as good as the best, corrected for all pairs that it was chosen among; 1 for the best.
        can_win: Whether it may be selected.
    """

    name: str
    family: str
    parameters: int
    accuracy: float
    error: float
    deviation: float
    behind: float
    behind_error: float
    p: float
    can_win: bool

    @property
    def is_told_apart(self) -> bool:
        """Whether it is worse than the best by more than chance."""
        return self.p < SURE


@dataclass(frozen=True)
class Choice:
    """Which candidate was selected, and how all of them stand, the best first.

    Args:
        winner: Name of the selected one.
        best: Name of the one with the best mean.
        standings: All candidates.
    """

    winner: str
    best: str
    standings: tuple[RankedCandidate, ...]

    @property
    def sentence(self) -> str:
        """What was selected, why, and how sure that is."""
        found = {standing.name: standing for standing in self.standings}
        winner, best, equal = found[self.winner], found[self.best], self.indistinguishable
        text = f"Selected {winner.name} ({winner.accuracy:.2f} +- {winner.error:.2f}, {winner.parameters:,} parameters)"
        if winner is not best:
            text += (
                f": smaller than the best, {best.name} ({best.accuracy:.2f}, {best.parameters:,} parameters), and "
                f"within one standard error of it"
            )
        if len(self.standings) > 1:
            text += f"; {len(equal)} of {len(self.standings)} candidates cannot be told from the best"
        return f"{text}."

    @property
    def indistinguishable(self) -> list[str]:
        """Names of those that cannot be told from the best, itself among them."""
        return [standing.name for standing in self.standings if not standing.is_told_apart]


def choose(
    candidates: Sequence[Candidate],
    *,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    one_standard_error: bool = True,
) -> Choice:
    """Select by the mean over images and seeds; of those within one standard error of the best, a small one.

    Small is what has at most four times as many parameters as the smallest of them; the best of these wins.

    The rule of one standard error ("The Elements of Statistical Learning", 7.10) is applied to the difference to the
    best, image by image, which is much surer than two accuracies are. Which candidates cannot be told from the best
    takes into account that the same images chose it; see `all_pairs`.

    Args:
        candidates: All of them over the same N images.
        strata: Class `(N,)` of each image, for the mean over classes; `None` counts all images the same.
        groups: Group `(N,)` of images that are no independent draws.
        one_standard_error: Whether a smaller one within one standard error wins.

    Raises:
        ValueError: If there is no candidate that can win.
    """
    able = [candidate for candidate in candidates if candidate.can_win]
    if not able:
        raise ValueError("None of the candidates can be saved as a probe; add a head or a logistic regression.")
    weights = class_weights(candidates[0].correct.shape[1], strata)
    values = {one.name: weights * one.by_image for one in candidates}
    best = max(able, key=lambda one: (values[one.name].mean(), -one.parameters))
    behind = {one.name: values[best.name] - values[one.name] for one in candidates}
    errors = {name: clustered_error(value, groups, strata) for name, value in behind.items()}
    near = [one for one in able if behind[one.name].mean() <= errors[one.name]] if one_standard_error else [best]
    limit = AS_SMALL * min(one.parameters for one in near)
    winner = min(
        (one for one in near if one.parameters <= limit), key=lambda one: (behind[one.name].mean(), one.parameters)
    )
    p_values = told_apart(np.stack(list(values.values())), candidates.index(best), groups)
    standings = [
        RankedCandidate(
            name=one.name,
            family=one.family,
            parameters=one.parameters,
            accuracy=100 * float(values[one.name].mean()),
            error=100 * clustered_error(values[one.name], groups, strata),
            deviation=100 * float((one.correct * weights).mean(1).std(ddof=1)) if len(one.correct) > 1 else 0.0,
            behind=100 * float(behind[one.name].mean()),
            behind_error=100 * errors[one.name],
            p=float(p),
            can_win=one.can_win,
        )
        for one, p in zip(candidates, p_values, strict=True)
    ]
    return Choice(winner.name, best.name, tuple(sorted(standings, key=lambda standing: standing.behind)))


def strata_of(metric: str | None, classes: np.ndarray) -> np.ndarray | None:
    """The classes `(N,)` where a selection metric counts them the same; `None` where it counts images."""
    return classes if metric == "balanced_accuracy" else None


def class_weights(num_images: int, strata: np.ndarray | None) -> np.ndarray:
    """Weights `(N,)` of mean 1 under which a mean over images is the mean over classes; ones without classes."""
    if strata is None:
        return np.ones(num_images)
    _, places, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return num_images / (len(counts) * counts[places])
