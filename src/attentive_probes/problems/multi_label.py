"""Several classes per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.problems.base import NOTHING_MORE, Problem, Wanted
from attentive_probes.problems.class_labels import class_id, class_table, named_table
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.problems.target_sums import TargetSums
from attentive_probes.scores.metrics import mean_auroc, mean_average_precision

if TYPE_CHECKING:
    from accelerate import Accelerator

    from attentive_probes.problems.label_columns import Labels


class MultiLabel(Problem):
    """Several classes per image: rows of zeros and ones as targets, binary cross-entropy, average precision."""

    name = "multi_label_classification"
    metrics = {  # noqa: RUF012 (never changed)
        "mean_average_precision": mean_average_precision,
        "mean_auroc": mean_auroc,
    }
    primary = "mean_average_precision"
    activation = "sigmoid"

    def table(
        self, labels: Labels, names: Sequence[str] | None, num_labels: int | None, separator: str | None
    ) -> LabelTable:
        """As in `Problem`: names of the column, or the distinct labels of all rows in order."""
        from attentive_probes.problems.label_columns import labels_of_rows  # pyarrow, only where columns are read

        known = named_table(labels, names, num_labels)
        return class_table(labels, labels_of_rows(labels, separator), num_labels) if known is None else known

    def target(
        self, label: Any, table: LabelTable, names: Sequence[str] | None, indicators: bool, separator: str | None
    ) -> np.ndarray:
        """As in `Problem`: zeros and ones `(C,)`, from such a row, from a list of names or ids, or from text."""
        count = len(table.names)
        wrong = f"it is no row of {count} zeros and ones, and no list of names or ids."
        if isinstance(label, str):
            if separator is None:
                raise ValueError("it is text; say what stands between the labels (label_separator).")
            label = [part.strip() for part in label.split(separator) if part.strip()]
        if not isinstance(label, list | tuple | np.ndarray):
            raise ValueError(wrong)
        if indicators and len(label) == count and _is_indicator(label):
            return np.asarray(label, np.float32)
        if any(isinstance(one, float) for one in label) or len(set(label)) < len(label):
            raise ValueError(wrong)
        row = np.zeros(count, np.float32)
        for one in label:
            row[class_id(one, table, names)] = 1
        return row

    def targets(self, labels: Labels, table: LabelTable, separator: str | None) -> np.ndarray | None:
        """As in `Problem`: zeros and ones `(N, C)`."""
        from attentive_probes.problems.label_columns import rows_of_length, rows_of_lists

        count = len(table.names)
        if labels.are_indicators(count):
            return rows_of_length(labels.array, count)
        try:
            if labels.are_lists:
                return rows_of_lists(labels.array, count, lambda label: class_id(label, table, labels.names))
            if labels.are_texts:
                texts, places = labels.distinct()
                return np.stack([self.target(text, table, labels.names, False, separator) for text in texts])[places]
        except ValueError:
            # The slower loop over rows names the first one that is wrong.
            pass
        return None

    def shape(self, num_labels: int) -> tuple[int, ...]:
        """As in `Problem`: a row of C numbers."""
        return (num_labels,)

    def losses(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """As in `Problem`: binary cross-entropy, the mean over labels."""
        joint = targets.reshape(logits.shape[1:]).to(logits.dtype).expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, joint, reduction="none").mean(2)

    def loss(self, logits: Tensor, targets: Tensor) -> float:
        """As in `Problem`: binary cross-entropy, the mean over images and labels."""
        return F.binary_cross_entropy_with_logits(logits, targets.reshape(logits.shape).to(logits.dtype)).item()

    def sums(
        self,
        num_heads: int,
        num_labels: int,
        accelerator: Accelerator | None = None,
        wanted: Wanted = NOTHING_MORE,
    ) -> TargetSums:
        """As in `Problem`: scores are kept, for metrics rank them."""
        return TargetSums(self, num_heads, accelerator)


def _is_indicator(row: Sequence[Any] | np.ndarray) -> bool:
    """Whether a row holds zeros and ones alone."""
    return all(isinstance(value, int | float | np.number) and value in (0, 1) for value in row)
