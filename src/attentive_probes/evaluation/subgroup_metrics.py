"""Metrics of medicine and of quality control for some heads, with intervals, over all test images and in subgroups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from attentive_probes.scores.image_records import ImageRecords
from attentive_probes.scores.ranking import auprc, auroc, quadratic_kappa, sensitivity_at
from attentive_probes.scores.resampling import interval_of, resample
from attentive_probes.scores.statistics import clustered_interval

DETAILED = ("auroc", "auprc", "kappa", "sensitivity")
MAX_VALUES = 50  # of a column, each of which is a subgroup


@dataclass(frozen=True)
class DetailOptions:
    """What is wanted of the test split beside what every head gets.

    Args:
        metrics: Among `auroc`, `auprc` (both over classes against the others, averaged, or of the positive class of
            two), `kappa` (quadratic, of classes in order) and `sensitivity` (of two classes).
        positive: Class id of the positive class of two.
        specificity: At which the sensitivity is taken.
        groups: Row of an image -> what it belongs to, by which intervals are clustered; `None` for no groups.
        slices: Column -> row -> value: the subgroups.
        predictions: Whether the predictions of every head are kept.
    """

    metrics: tuple[str, ...] = ()
    positive: int = 1
    specificity: float = 0.95
    groups: Mapping[int, str] | None = None
    slices: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    predictions: bool = False

    @property
    def are_asked_for(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.metrics or self.slices or self.groups)

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """The group `(N,)` of each image."""
        return None if self.groups is None else np.array([self.groups[row] for row in rows.tolist()])

    def of(self, records: ImageRecords, rows: np.ndarray) -> dict[str, Any]:
        """Metrics and subgroups of one head, with intervals, as they stand in `results.json`.

        Args:
            records: Its predictions and probabilities.
            rows: Rows `(N,)` of the images in what was read.
        """
        groups = self.groups_of(rows)
        found = self._metrics(records, np.arange(len(rows)), groups)
        slices: dict[str, Any] = {}
        for column, by_row in self.slices.items():
            values = np.array([str(by_row[row]) for row in rows.tolist()])
            counts = {value: int((values == value).sum()) for value in np.unique(values).tolist()}
            shown = sorted(counts, key=lambda value: -counts[value])[:MAX_VALUES]
            slices[column] = {
                value: self._subgroup(records, np.flatnonzero(values == value), groups) for value in shown
            }
        return {**found, **({"slices": slices} if slices else {})}

    def _subgroup(self, records: ImageRecords, places: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
        correct = (records.predictions == records.labels)[places]
        interval = clustered_interval(correct, None if groups is None else groups[places])
        found = {"images": len(places), "top1": 100 * correct.mean()}
        found |= {} if interval is None else {"top1_interval": [100 * end for end in interval]}
        return {**found, **self._metrics(records, places, groups)}

    def _metrics(self, records: ImageRecords, places: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        own = None if groups is None else groups[places]
        for name in self.metrics:
            metric = self._metric(name, records)
            value = metric(places)
            if not np.isfinite(value):
                found[name] = None  # of a single class
                continue
            interval = interval_of(resample(partial(_of_places, metric, places), len(places), own))
            found[name] = value
            found |= {} if interval is None else {f"{name}_interval": list(interval)}
        return found

    def _metric(self, name: str, records: ImageRecords) -> Callable[[np.ndarray], float]:
        labels, probabilities = records.labels, records.probabilities
        assert probabilities is not None
        if name == "kappa":
            return lambda rows: quadratic_kappa(labels[rows], records.predictions[rows], probabilities.shape[1])
        if name == "sensitivity":
            is_positive, score = labels == self.positive, probabilities[:, self.positive]
            return lambda rows: 100 * sensitivity_at(score[rows], is_positive[rows], self.specificity)
        ranked = {"auroc": auroc, "auprc": auprc}[name]
        classes = [self.positive] if probabilities.shape[1] == 2 else range(probabilities.shape[1])

        def average(rows: np.ndarray) -> float:
            values = [ranked(probabilities[rows, c], labels[rows] == c) for c in classes]
            known = [value for value in values if np.isfinite(value)]
            return 100 * float(np.mean(known)) if known else float("nan")

        return average


def _of_places(metric: Callable[[np.ndarray], float], places: np.ndarray, rows: np.ndarray) -> float:
    return metric(places[rows])


def check_details(metrics: Sequence[str], num_labels: int) -> None:
    """Check that metrics suit the number of classes.

    Raises:
        ValueError: If one needs two classes.
    """
    for name in metrics:
        if name == "sensitivity" and num_labels != 2:
            raise ValueError(f"evaluation.metrics: sensitivity needs two classes; there are {num_labels}.")
