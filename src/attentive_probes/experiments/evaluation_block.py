"""The blocks of a recipe on judging: how a head is chosen, how the test split is reported, what a paper found."""

from __future__ import annotations

from dataclasses import dataclass, field

from attentive_probes.checks import COUNT, SHARE, Range, check_ranges, unknown_name
from attentive_probes.evaluation.references import Reference
from attentive_probes.evaluation.subgroup_metrics import DETAILED


@dataclass
class SelectionRecipe:
    """How one head is chosen, where the best mean on one validation split is not sure enough.

    Heads and settings, logistic regressions among `evaluation.references` as well, are compared image by image, on
    images that none of them learned from.

    Args:
        folds: Folds of a cross-validation over training and validation images together; 0 compares on the validation
            split. Seeds and rates of the grid are trained once per fold; only the winner, the baseline and what is
            drawn are then trained on the training split.
        one_standard_error: Whether a smaller head wins that is within one standard error of the best.
        refit: Whether these are trained on training and validation images together in the end, for all epochs.

    Raises:
        ValueError: If there is one fold, or a refit without folds.
    """

    folds: int = 5
    one_standard_error: bool = True
    refit: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, {"folds": Range(0, 1000, whole=True)})
        if self.folds == 1:
            raise ValueError("selection.folds is 1; two folds at least hold every image out once, and 0 holds none.")
        if self.refit and not self.folds:
            raise ValueError(
                "selection.refit needs selection.folds: epochs are selected on the validation split without."
            )


@dataclass
class EvaluationRecipe:
    """How the test split is reported.

    Args:
        baseline: Head that the others are compared with, image by image; the selected head by default. Here and below,
            the name of a head that was crossed with a grid is the best of its settings, and `best` the selected head.
        attention_head: Head whose attention maps are drawn over test images; `null` draws none.
        references: Name -> k-NN or logistic regression on fixed features, beside the heads.
        num_images: Number of images in that picture.
        layers_head: Head whose attention per layer, over all test images, is drawn beside the accuracy of the heads
            that read a single layer; `null` draws none.
        metrics: What else is told of the selected head and the baseline, with intervals: `auroc`, `auprc`, `kappa`
            (quadratic, of classes in order), `sensitivity` (of two classes, at `specificity`). Regressions and several
            labels have their rank metrics always.
        positive: Name of the positive class of two; by default the second one.
        specificity: Specificity at which sensitivity is reported: share of negatives that are classified as negative.
        predictions: Whether the predictions of every head on all test images are written, to
            `head_predictions.parquet`.
        slices: Columns whose values are subgroups, such as a hospital or a camera: accuracy and metrics of each.
        report: Whether images and labels are audited, and pictures and the report are made; runs of a study have one
            page for all, and make none unless they are asked to.

    Raises:
        ValueError: If a number is out of range, or a metric unknown.
    """

    baseline: str | None = None
    attention_head: str | None = None
    references: dict[str, Reference] = field(default_factory=dict)
    num_images: int = 8
    layers_head: str | None = None
    metrics: list[str] = field(default_factory=list)
    positive: str | None = None
    specificity: float = 0.95
    slices: list[str] = field(default_factory=list)
    predictions: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, {"num_images": COUNT, "specificity": SHARE})
        for name in self.metrics:
            if name not in DETAILED:
                raise ValueError(unknown_name("metric in evaluation.metrics:", name, DETAILED))


@dataclass
class PaperRecipe:
    """The paper whose protocol a recipe follows.

    Args:
        link: Where it is.
        published: Head -> test accuracy that it gives, in percent.
        second_hand: Heads whose figure is known from notes about the paper alone.
        parameters: Head -> number of trained parameters that it gives.
        notes: What differs, and where figures come from.
        theirs: Changes on the command line that make the protocol the paper's own, where that is flawed.
    """

    link: str
    published: dict[str, float] = field(default_factory=dict)
    second_hand: list[str] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    theirs: list[str] = field(default_factory=list)
