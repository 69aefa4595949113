"""Numbers to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.problems.base import NOTHING_MORE, Problem, Wanted
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.problems.target_scale import TargetScale
from attentive_probes.problems.target_sums import TargetSums
from attentive_probes.scores.metrics import absolute_errors, mean_absolute_error, pearson, r2, spearman, squared_error

if TYPE_CHECKING:
    from accelerate import Accelerator

    from attentive_probes.problems.label_columns import Labels


class Regression(Problem):
    """A number per image, or several: squared error in training, absolute error and correlations in results."""

    name = "regression"
    metrics = {  # noqa: RUF012 (never changed)
        "mean_absolute_error": mean_absolute_error,
        "r2": r2,
        "spearman": spearman,
        "pearson": pearson,
    }
    primary = "mean_absolute_error"
    errors = ("loss", "mean_absolute_error")
    activation = "none"
    has_classes = False

    def table(
        self, labels: Labels, names: Sequence[str] | None, num_labels: int | None, separator: str | None
    ) -> LabelTable:
        """As in `Problem`: the targets by their numbers, as many as the first row has."""
        first = next((label for label in labels.values() if label is not None), 0.0)
        width = len(first) if isinstance(first, list) else 1
        return LabelTable(tuple(names)) if names is not None else LabelTable.numbered(num_labels or width)

    def table_without_rows(
        self, column_names: Sequence[str] | None, names: Sequence[str] | None, num_labels: int | None
    ) -> LabelTable:
        """As in `Problem`: one target, unless more are asked for."""
        return LabelTable.numbered(num_labels or 1)

    def target(
        self, label: Any, table: LabelTable, names: Sequence[str] | None, indicators: bool, separator: str | None
    ) -> np.ndarray:
        """As in `Problem`: one number `()`, or a row of them `(C,)`."""
        shape = self.shape(len(table.names))
        if names is not None and isinstance(label, int):
            label = _number_of(names[label])  # the id of a class says nothing of its amount
        try:
            values = np.asarray(label, np.float32)
        except (TypeError, ValueError):
            values = np.asarray(np.nan, np.float32)
        if values.shape == (1,) and shape == ():
            values = values[0]
        if np.shape(values) != shape or not np.isfinite(values).all():
            expected = "a finite number" if shape == () else f"a row of {len(table.names)} finite numbers"
            raise ValueError(f"it is not {expected}.")
        return np.asarray(values, np.float32)

    def targets(self, labels: Labels, table: LabelTable, separator: str | None) -> np.ndarray | None:
        """As in `Problem`: numbers `(N,)` or `(N, C)`."""
        from attentive_probes.problems.label_columns import numbers  # pyarrow, only where columns are read

        if labels.names is not None:
            return None  # row by row, by the names behind the ids
        return numbers(labels.array, len(table.names))

    def shape(self, num_labels: int) -> tuple[int, ...]:
        """As in `Problem`: a single number, or a row of C numbers."""
        return () if num_labels == 1 else (num_labels,)

    def scale_of(self, targets: Tensor) -> TargetScale:
        """As in `Problem`: mean and deviation of each target.

        Raises:
            ValueError: If a target is the same for all images.
        """
        return TargetScale.of(targets)

    def losses(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """As in `Problem`: squared error, the mean over targets."""
        joint = targets.reshape(logits.shape[1:]).to(logits.dtype).expand_as(logits)
        return F.mse_loss(logits, joint, reduction="none").mean(2)

    def loss(self, logits: Tensor, targets: Tensor) -> float:
        """As in `Problem`: squared error; of several targets each in units of its deviation."""
        return squared_error(logits, targets)

    def sums(
        self,
        num_heads: int,
        num_labels: int,
        accelerator: Accelerator | None = None,
        wanted: Wanted = NOTHING_MORE,
    ) -> TargetSums:
        """As in `Problem`: predictions are kept, for metrics rank them."""
        return TargetSums(self, num_heads, accelerator)

    def details(self, scores: Tensor, targets: Tensor) -> dict[str, Any]:
        """As in `Problem`: of each of several targets, absolute error in its own unit and variance explained."""
        if targets.ndim < 2 or targets.shape[1] < 2:
            return {}
        errors = absolute_errors(scores, targets).tolist()
        return {"per_target": [[error, r2(scores[:, i], targets[:, i])] for i, error in enumerate(errors)]}


def _number_of(name: str) -> float:
    """The number that the name of a class is.

    Raises:
        ValueError: If it is none.
    """
    try:
        return float(name)
    except ValueError as error:
        raise ValueError(f"the class {name!r} is no number, so that it cannot be learned as one.") from error
