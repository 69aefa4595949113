"""What makes the numbers of a run less sure than they look, as far as the numbers themselves tell."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.stats import fisher_exact

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.families import best_per_head, value_of
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.scores.statistics import reach, student_p

CHANCE = 0.01  # of a difference between validation and test, below which it is called one
UNDERFIT = 0.8  # of the loss of guessing
RISE = 1.2  # of the validation loss over its least value


def doubts_of(results: SweepResults) -> list[str]:
    """One sentence per doubt, with what would help, about a run whose training is over, and maybe tested."""
    return [*_epochs(results), *_rates(results), *_attention(results), *_fit(results.best), *_test(results)]


def _epochs(results: SweepResults) -> Iterator[str]:
    best = results.best
    if not results.arguments.get("select_epoch", True):
        return
    if best.history and best.best_epoch == len(best.history):
        yield (
            f"The selected head {best.name} was best in its last epoch ({best.best_epoch}): it may not have learned "
            "all that it can; train for more epochs."
        )


def _rates(results: SweepResults) -> Iterator[str]:
    for family in best_per_head(results.heads, results.selection_metric):
        members = [head for head in results.heads if (head.family or head.name) == family.name]
        tried = sorted({head.learning_rate for head in members})
        best = results.head(family.best.names[0])
        if len(tried) < 2 or best.learning_rate not in (tried[0], tried[-1]) or not best.validation:
            continue
        is_least = best.learning_rate == tried[0]
        beside = [head for head in members if head.learning_rate == (tried[1] if is_least else tried[-2])]
        if _is_guessing(best, results) or not _is_ahead(best, beside, results.selection_metric):
            continue
        which, more = ("smallest", "smaller") if is_least else ("largest", "larger")
        yield (
            f"The best learning rate of {family.name}, {best.learning_rate:g}, is the {which} of those that were "
            f"tried ({tried[0]:g} to {tried[-1]:g}): try {more} ones."
        )


def _is_guessing(head: HeadResult, results: SweepResults) -> bool:
    """Whether a head cannot be told from answering the most frequent class whatever it sees."""
    largest = (results.data.get("validation") or {}).get("largest_class")
    return largest is not None and head.validation_interval is not None and head.validation_interval[0] <= largest


def _is_ahead(best: HeadResult, beside: list[HeadResult], metric: str) -> bool:
    """Whether a head is better on validation than all heads at the rate beside its own, by more than its error."""
    values = [found for head in beside if (found := value_of(head, metric)) is not None]
    own = value_of(best, metric)
    if own is None or not values:
        return True
    low, high = best.validation_interval if metric == "top1" and best.validation_interval else (own, own)
    return min(abs(value - own) for value in values) > (high - low) / 2


def _attention(results: SweepResults) -> Iterator[str]:
    for family in best_per_head(results.heads, results.selection_metric):
        head = results.head(family.best.names[0])
        spread = head.attention
        if spread is None or head.query_learning_rate is None or not spread.is_even:
            continue
        yield (
            f"The queries of {family.name} hardly moved: its attention is uniform (entropy {spread.entropy:.2f} of at "
            f"most {spread.bound:.2f}), so that it sees little but the mean token. Try a query_learning_rate of "
            f"{10 * head.query_learning_rate:g} instead of {head.query_learning_rate:g}, or more epochs."
        )


def _fit(best: HeadResult) -> Iterator[str]:
    rows = [row for row in best.history if row.get("loss") is not None and row.get("train_loss") is not None]
    losses = np.array([[float(row[key] or 0) for key in ("train_loss", "loss")] for row in rows])
    num_classes = len((best.test or {}).get("per_class") or [])
    if num_classes > 1 and len(losses) and losses[-1, 0] > UNDERFIT * math.log(num_classes):
        yield (
            f"The selected head {best.name} underfits: its training loss, {losses[-1, 0]:.2f}, is near that of "
            f"guessing among {num_classes} classes, {math.log(num_classes):.2f}; try larger rates, more epochs, or "
            "another layer or backbone."
        )
    if len(losses) < 2 or not np.isfinite(losses).all():
        return
    least = int(losses[:, 1].argmin())
    if losses[-1, 1] > RISE * losses[least, 1] and losses[-1, 0] < losses[least, 0]:
        yield (
            f"The selected head {best.name} overfits: its validation loss rose from {losses[least, 1]:.2f} (epoch "
            f"{least + 1}) to {losses[-1, 1]:.2f} while its training loss fell; weight decay, augmentation or a "
            "smaller head would help more than epochs."
        )


def _p_of_splits(results: SweepResults, values: tuple[float, float], sizes: list[int]) -> float:
    """P-value of two accuracies in percent, each of other images, being the same.

    By Fisher's exact test; where images come in groups, by the errors that their intervals tell.
    """
    groups = [(results.data.get(name) or {}).get("groups") for name in ("validation", "test")]
    if all(count is None for count in groups):
        counts = [[round(value / 100 * size), size] for value, size in zip(values, sizes, strict=True)]
        return float(fisher_exact([[hits, size - hits] for hits, size in counts])[1])
    best = results.best
    intervals = [best.validation_interval, (best.test or {}).get("top1_interval")]
    if None in intervals:
        return 1.0
    draws = [count or size for count, size in zip(groups, sizes, strict=True)]
    errors = [(high - low) / 2 / reach(count) for (low, high), count in zip(intervals, draws, strict=True)]  # type: ignore[misc]  # none is None
    return student_p(values[0] - values[1], math.hypot(*errors), min(draws))


def _test(results: SweepResults) -> Iterator[str]:
    best = results.best
    found, tested = best.validation.get("top1"), (best.test or {}).get("top1")
    sizes = [(results.data.get(name) or {}).get("images") for name in ("validation", "test")]
    if found is None or tested is None or not all(sizes):
        return
    p = _p_of_splits(results, (found, tested), [int(size or 0) for size in sizes])
    if p < CHANCE and math.isfinite(p):
        yield (
            f"The selected head {best.name} has {found:.2f} on validation and {tested:.2f} on test, which differ by "
            f"more than chance (p = {p:.1g}): the splits are of different kinds, or the choice on validation was lucky."
        )
