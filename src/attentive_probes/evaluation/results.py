"""What a run found out, as one JSON file and one table."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from attentive_probes.evaluation.metrics import SMALLER_IS_BETTER
from attentive_probes.evaluation.seeds import over_seeds

SCHEMA_VERSION = 1
PROTOCOL = (
    "Epoch and head are selected on the validation split; the test split is scored once, after training. "
    "Accuracies are percentages; intervals are 95% bootstrap intervals over test images."
)


@dataclass
class HeadResult:
    """One head of a run.

    Args:
        name: Its name.
        head: Its `HeadConfig` as a mapping.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        trainable_parameters: Number of parameters that were trained.
        seed: Seed of its initial weights, and of order and views of its images.
        best_epoch: Epoch (from 1) with the best validation value of the selection metric; 0 if there is none.
        seconds: Time of the run up to the end of that epoch; heads of one run share their backbone pass.
        validation: Metrics at that epoch.
        validation_interval: 95% Wilson interval of the top-1 accuracy there, in percent.
        diverged: Optimizer step (from 1) at which its loss was no finite number any more, 0 if its scores on the
            validation split were the first to be none; `None` for most. It trained no further; earlier epochs count.
        history: Per epoch: training loss and validation metrics.
        test: Metrics on the test split, with `top1_interval` and `top1_difference` (mean, low, high) to the baseline.
    """

    name: str
    head: dict[str, Any]
    learning_rate: float
    weight_decay: float
    trainable_parameters: int
    seed: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    validation_interval: list[float] | None = None
    diverged: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    test: dict[str, Any] | None = None


@dataclass
class ReferenceResult:
    """A classifier on fixed features beside the heads.

    Args:
        name: Its name.
        reference: Method and what was tried, as a mapping.
        settings: What was chosen on the validation split.
        validation: Accuracy there, in percent.
        test: As in `HeadResult`.
    """

    name: str
    reference: dict[str, Any]
    settings: dict[str, float]
    validation: float
    test: dict[str, Any] | None = None


@dataclass
class SweepResults:
    """A run: its heads and the circumstances.

    Args:
        heads: One entry per head.
        selection_metric: What chose epoch and head on the validation split.
        backbone: Name and revision.
        arguments: The training arguments.
        dataset: `name`, `config`, `revision`, names of the splits, and whether it is `on_hub`.
        hardware: What it ran on.
        date: Day it began.
        data: Number of images per split, and how many were left out as unreadable.
        num_processes: Number of processes.
        adaptation: `frozen`, or `lora` if an adapter on the backbone was trained with the head.
        seconds: Training time, evaluation on validation included, set-up excluded.
        warnings: What makes the numbers less sure than they look.
        references: Classifiers on fixed features.
        baseline: Head that the others are compared with on the test split.
        versions: Versions of the libraries used.
        protocol: How to read the numbers.
        schema_version: Version of this layout.
    """

    heads: list[HeadResult]
    selection_metric: str
    backbone: dict[str, Any]
    arguments: dict[str, Any]
    data: dict[str, Any]
    num_processes: int = 1
    adaptation: str = "frozen"
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    references: list[ReferenceResult] = field(default_factory=list)
    dataset: dict[str, Any] = field(default_factory=dict)
    hardware: str = field(default_factory=lambda: hardware())
    date: str = field(default_factory=lambda: date.today().isoformat())
    baseline: str | None = None
    versions: dict[str, str] = field(default_factory=lambda: library_versions())
    protocol: str = PROTOCOL
    schema_version: int = SCHEMA_VERSION

    @property
    def best(self) -> HeadResult:
        """The head with the best validation value of the selection metric; the first one among equals.

        A head that diverged before it had a single good epoch comes last.
        """
        sign = 1 if self.selection_metric in SMALLER_IS_BETTER else -1

        def rank(head: HeadResult) -> float:
            value, loss = head.validation.get(self.selection_metric), head.validation.get("loss", 0.0)
            if value is None or loss is None or not (math.isfinite(value) and math.isfinite(loss)):
                return math.inf
            return sign * value

        return min(self.heads, key=rank)

    @property
    def best_so_far(self) -> str:
        """The best head and its value, in a few words."""
        best, metric = self.best, self.selection_metric
        return f"best {best.name}: {metric} {best.validation[metric]:.2f}" if best.validation else ""

    def head(self, name: str) -> HeadResult:
        """The entry of one head.

        Raises:
            KeyError: If there is none of that name.
        """
        return {head.name: head for head in self.heads}[name]

    def to_json(self) -> dict[str, Any]:
        """What `save` writes, as plain values; what is no number is `None`."""
        summaries = [asdict(summary) for summary in over_seeds(self.heads)]
        return _without_nan({**asdict(self), "best": self.best.name, "over_seeds": summaries})

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON, replacing the file in a single step; what is no number becomes null."""
        temporary = Path(path).with_suffix(".partial")
        temporary.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SweepResults:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file has another schema version.
        """
        content = json.loads(Path(path).read_text())
        if content.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {content.get('schema_version')}, this is {SCHEMA_VERSION}.")
        content.pop("best")
        content.pop("over_seeds")
        content["heads"] = [HeadResult(**head) for head in content["heads"]]
        content["references"] = [ReferenceResult(**reference) for reference in content["references"]]
        return cls(**content)

    def table(self) -> Table:
        """One row per head, for the terminal."""
        metric = self.selection_metric
        table = Table(
            title=f"{len(self.heads)} heads on one backbone pass ({self.adaptation}), {self.seconds:.0f} s",
            caption="\n".join(
                [
                    f"* head selected by {metric} on validation, as was each epoch; test scored once, 95% intervals",
                    *self.warnings,
                ]
            ),
        )
        for column in ("head", "parameters", "rate", f"val {metric}", "epoch", "seconds"):
            table.add_column(column, justify="left" if column == "head" else "right", no_wrap=True)
        tested = any(head.test for head in self.heads)
        if tested:
            table.add_column("test top1", justify="right")
            table.add_column(f"minus {self.baseline}", justify="right")
        for head in self.heads:
            row = [
                f"{head.name} *" if head.name == self.best.name else head.name,
                f"{head.trainable_parameters:,}",
                f"{head.learning_rate:g}",
                "diverged" if (value := head.validation.get(metric)) is None else f"{value:.2f}",
                str(head.best_epoch),
                f"{head.seconds:.0f}",
            ]
            table.add_row(*row, *(_test_cells(head) if tested else ()))
        if self.references:
            table.add_section()
        for reference in self.references:
            settings = " ".join(f"{key}={value:g}" for key, value in reference.settings.items())
            row = [f"{reference.name} ({settings})", "", "", f"{reference.validation:.2f}", "", ""]
            table.add_row(*row, *(_test_cells(reference) if tested else ()))
        return table


def _test_cells(head: HeadResult | ReferenceResult) -> tuple[str, str]:
    test = head.test or {}
    if "top1" not in test:
        return f"loss {test.get('loss', float('nan')):.4f}", ""
    low, high = test["top1_interval"]
    accuracy = f"{test['top1']:.2f} [{low:.2f}, {high:.2f}]"
    mean, difference_low, difference_high = test["top1_difference"]
    return accuracy, f"{mean:+.2f} [{difference_low:+.2f}, {difference_high:+.2f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def hardware() -> str:
    """The accelerators of this machine, or its CPU cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    names = ("attentive-probes", "torch", "transformers", "accelerate", "datasets", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
