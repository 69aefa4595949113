"""What a problem is: a kind of label, and everything that follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from attentive_probes.problems.label_table import LabelTable

if TYPE_CHECKING:
    from accelerate import Accelerator

    from attentive_probes.problems.label_columns import Labels
    from attentive_probes.problems.target_scale import TargetScale

Metric = Callable[[Tensor, Tensor], float]


class Scores(Protocol):
    """What one head answered about the images of a split."""

    @property
    def num_images(self) -> int:
        """Number of images N."""

    @property
    def are_finite(self) -> bool:
        """Whether every score is a finite number."""

    @property
    def rows(self) -> np.ndarray | None:
        """Identities `(N,)` of the images, where they are known."""

    def metrics(self) -> dict[str, float]:
        """The loss and all metrics of the problem."""

    def intervals(self, groups: np.ndarray | None = None) -> dict[str, list[float]]:
        """`<metric>_interval` for each metric whose interval is known; of images in groups `(N,)`, by these."""

    def test_metrics(self, baseline: Any, groups: np.ndarray | None = None) -> dict[str, Any]:
        """`metrics` and `intervals`, with differences to the scores of a baseline over the same images."""


class ScoreSums(Protocol):
    """What several heads answer about a split, added up batch by batch."""

    def add(self, logits: Tensor, labels: Tensor, images: Tensor | None = None) -> None:
        """Add a batch of this process: logits `(B, H, C)`, labels `(B,)` or `(B, C)`, identities `(B,)`; B may be 0."""

    def scores(self) -> Sequence[Scores]:
        """The scores of each head, over all batches of all processes."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of the predictions of several heads beside their metrics; of heads that give classes.

    Args:
        confusion: Whether to count labels by predictions, where there are few classes.
        keep: Numbers of the heads whose predictions are kept image by image.
        probabilities: Whether these are kept with the probabilities of all classes.
        temperatures: What the logits of each head are divided by before they are probabilities; `None` for 1.
    """

    confusion: bool = False
    keep: Sequence[int] = ()
    probabilities: bool = False
    temperatures: Sequence[float | None] = ()


NOTHING_MORE = Wanted()


class Problem(ABC):
    """A kind of label: how labels become targets, what is learned, and how predictions are judged.

    There is one file per problem, and `PROBLEMS` lists them: a new kind of label is a new file there.

    Attributes:
        name: As in the `problem_type` of transformers.
        metrics: Name -> metric of scores and targets.
        primary: The metric that stands for the problem in a table.
        selection: What selects epoch and head on validation, unless something else is asked for.
        errors: Metrics of which smaller values are better.
        activation: What makes predictions of logits: `softmax`, `sigmoid` or `none`.
        has_classes: Whether the outputs of a head are classes with probabilities.
        has_one_class: Whether each image has exactly one class, so that an answer is right or wrong.
    """

    name: ClassVar[str]
    metrics: ClassVar[dict[str, Metric]]
    primary: ClassVar[str]
    selection: ClassVar[str] = "loss"
    errors: ClassVar[tuple[str, ...]] = ("loss",)
    activation: ClassVar[str]
    has_classes: ClassVar[bool] = True
    has_one_class: ClassVar[bool] = False

    @abstractmethod
    def table(
        self, labels: Labels, names: Sequence[str] | None, num_labels: int | None, separator: str | None
    ) -> LabelTable:
        """The label table of a run, from its training column; see `make_table`."""

    def table_without_rows(
        self, column_names: Sequence[str] | None, names: Sequence[str] | None, num_labels: int | None
    ) -> LabelTable:
        """The label table of a stream, whose labels are not known before they pass.

        Args:
            column_names: Names that the label column brings.
            names: Names that were asked for.
            num_labels: Number of classes that was asked for.

        Raises:
            ValueError: If nothing tells how many classes there are.
        """
        if names is not None:
            return LabelTable(tuple(names))
        if column_names is not None and num_labels in (None, len(column_names)):
            return LabelTable.of_names(column_names)
        if num_labels is None:
            raise ValueError("The stream does not know its classes; list their names as data.labels.")
        return LabelTable.numbered(num_labels)

    @abstractmethod
    def target(
        self, label: Any, table: LabelTable, names: Sequence[str] | None, indicators: bool, separator: str | None
    ) -> Any:
        """The target of a single raw label.

        Args:
            label: As it is stored.
            table: The label table of the run.
            names: Names behind the ids of a `ClassLabel` column.
            indicators: Whether a row of zeros and ones says which classes an image has.
            separator: What stands between several labels in a text.

        Raises:
            ValueError: If it is no valid target; the text says why.
        """

    @abstractmethod
    def targets(self, labels: Labels, table: LabelTable, separator: str | None) -> np.ndarray | None:
        """Targets of a whole column at once; `None` where each row must be looked at, to name the wrong one."""

    @abstractmethod
    def shape(self, num_labels: int) -> tuple[int, ...]:
        """The shape of the target of one image."""

    def empty(self, num_labels: int) -> Tensor:
        """Targets of no image."""
        return torch.empty(0, *self.shape(num_labels))

    def are_targets(self, labels: Tensor, num_labels: int) -> bool:
        """Whether labels that were stored are targets of this problem with C classes or numbers."""
        columns = labels.shape[1] if labels.ndim == 2 else 1
        return columns == num_labels and bool(labels.isfinite().all())

    def scale_of(self, targets: Tensor) -> TargetScale | None:
        """How targets are shifted and scaled for training; `None` where they are learned as they are.

        Raises:
            ValueError: If there is nothing to learn.
        """
        return None

    @abstractmethod
    def losses(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Losses `(H, B)` of a batch, image by image: logits `(H, B, C)` of H heads, targets `(B,)` or `(B, C)`."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> float:
        """The mean loss of logits `(N, C)` over a split."""

    @abstractmethod
    def sums(
        self,
        num_heads: int,
        num_labels: int,
        accelerator: Accelerator | None = None,
        wanted: Wanted = NOTHING_MORE,
    ) -> ScoreSums:
        """What adds up the predictions of several heads to a split.

        Args:
            num_heads: Number of heads H.
            num_labels: Number of classes or targets C.
            accelerator: Among which processes; `None` for this one alone.
            wanted: What is wanted of the predictions beside the metrics.
        """

    def all_metrics(self, scores: Tensor, targets: Tensor) -> dict[str, float]:
        """All metrics of scores `(N, C)` and targets.

        Raises:
            ValueError: If a score is no number.
        """
        return {name: metric(scores, targets) for name, metric in self.metrics.items()}

    def details(self, scores: Tensor, targets: Tensor) -> dict[str, Any]:
        """What is told of the test split beside metrics, as it stands in `results.json`."""
        return {}
