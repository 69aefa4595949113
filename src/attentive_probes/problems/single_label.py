"""One class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.problems.base import NOTHING_MORE, Problem, Wanted
from attentive_probes.problems.class_labels import class_id, class_table, named_table
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.scores.class_scores import MAX_CONFUSION
from attentive_probes.scores.class_sums import ClassSums
from attentive_probes.scores.metrics import balanced_accuracy, class_scores, ece, macro_f1, top1, top5

if TYPE_CHECKING:
    from accelerate import Accelerator

    from attentive_probes.problems.label_columns import Labels


class SingleLabel(Problem):
    """One class per image: class ids as targets, cross-entropy, accuracies."""

    name = "single_label_classification"
    metrics = {  # noqa: RUF012 (never changed)
        "top1": top1,
        "top5": top5,
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "ece": ece,
    }
    primary = selection = "top1"
    errors = ("loss", "ece")
    activation = "softmax"
    has_one_class = True

    def table(
        self, labels: Labels, names: Sequence[str] | None, num_labels: int | None, separator: str | None
    ) -> LabelTable:
        """As in `Problem`: names of the column, or its distinct labels in order."""
        known = named_table(labels, names, num_labels)
        if known is not None:
            return known
        found = [label for label in labels.distinct()[0] if label is not None and label == label]
        return class_table(labels, found, num_labels)

    def target(
        self, label: Any, table: LabelTable, names: Sequence[str] | None, indicators: bool, separator: str | None
    ) -> int:
        """As in `Problem`: the class id."""
        return class_id(label, table, names)

    def targets(self, labels: Labels, table: LabelTable, separator: str | None) -> np.ndarray | None:
        """As in `Problem`: class ids `(N,)`; each distinct label is looked at once."""
        raw, places = labels.distinct()
        try:
            ids = [class_id(label, table, labels.names) for label in raw]
        except ValueError:
            # The slower loop over rows names the first one that is wrong.
            return None
        return np.asarray(ids, np.int64)[places] if len(places) else np.zeros(0, np.int64)

    def shape(self, num_labels: int) -> tuple[int, ...]:
        """As in `Problem`: a single number."""
        return ()

    def empty(self, num_labels: int) -> Tensor:
        """As in `Problem`: no class id."""
        return torch.empty(0, dtype=torch.long)

    def are_targets(self, labels: Tensor, num_labels: int) -> bool:
        """As in `Problem`: ids of C classes."""
        if labels.ndim != 1 or labels.is_floating_point():
            return False
        return bool(labels.min() >= 0) and int(labels.max()) < num_labels

    def losses(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """As in `Problem`: cross-entropy."""
        of_all = targets.expand(len(logits), -1).reshape(-1)
        losses = F.cross_entropy(logits.flatten(0, 1), of_all, class_weights, reduction="none")
        return losses.view(logits.shape[:2])

    def loss(self, logits: Tensor, targets: Tensor) -> float:
        """As in `Problem`: mean cross-entropy."""
        return class_scores(logits, targets).loss

    def sums(
        self,
        num_heads: int,
        num_labels: int,
        accelerator: Accelerator | None = None,
        wanted: Wanted = NOTHING_MORE,
    ) -> ClassSums:
        """As in `Problem`: no score is kept, unless predictions are to be."""
        is_small = wanted.confusion and num_labels <= MAX_CONFUSION
        kept = (wanted.keep, wanted.probabilities, wanted.temperatures)
        return ClassSums(num_heads, num_labels, is_small, *kept, accelerator)

    def all_metrics(self, scores: Tensor, targets: Tensor) -> dict[str, float]:
        """As in `Problem`, in one pass over the scores."""
        found = class_scores(scores, targets)
        return {name: getattr(found, name) for name in self.metrics}
