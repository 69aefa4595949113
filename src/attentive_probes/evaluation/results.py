"""What a run found out, as one JSON file and one table."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.table import Table

from attentive_probes.evaluation.runs.families import Family, best_per_head, best_setting, settings_of
from attentive_probes.evaluation.runs.head_result import HeadResult, ReferenceResult
from attentive_probes.evaluation.runs.history import read_history
from attentive_probes.evaluation.runs.score import primary_metric
from attentive_probes.evaluation.runs.tables import results_table
from attentive_probes.files.untrusted import check_fields, untrusted
from attentive_probes.files.writing import write_whole
from attentive_probes.machine.environment import hardware, library_versions
from attentive_probes.problems import PRIMARY
from attentive_probes.scores.metrics import check_metrics
from attentive_probes.scores.statistics import holm

SCHEMA_VERSION, READABLE = 5, (1, 2, 3, 4, 5)
OLDER_RULE = (
    "Selected by an older rule (schema {}): candidates were compared one by one with the best, heads maybe at the "
    "epoch that was best on the same images."
)
READING = (
    "Accuracies are percentages with 95% Wilson intervals; differences are over the same images, with Newcombe's "
    "intervals and exact McNemar tests, corrected by Holm for the number of comparisons; other metrics have bootstrap "
    "intervals."
)
PROTOCOL = (
    f"Epoch and head are selected on the validation split; the test split is scored once, after training. {READING}"
)


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
        selection: How a winner was chosen among all candidates, if it was: `winner`, `method`, `sentence`, `standings`,
            and `refit`, the number of images that it was trained on in the end.
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
    hardware: str = field(default_factory=hardware)
    date: str = field(default_factory=lambda: date.today().isoformat())
    baseline: str | None = None
    versions: dict[str, str] = field(default_factory=library_versions)
    protocol: str = PROTOCOL
    selection: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def best(self) -> HeadResult:
        """The selected head: of the setting with the best mean over seeds on validation, the best seed there.

        The first one among equals; heads that diverged before they had a single good epoch come last. Where a winner
        was chosen among all candidates, it is the best seed of that one; of heads alone, if a reference won.
        """
        settings = settings_of(self.heads, self.selection_metric)
        chosen = [setting for setting in settings if self.selection.get("winner") in setting.names]
        return self.head(best_setting(chosen or settings, self.selection_metric).names[0])

    @property
    def test_metric(self) -> str | None:
        """The metric that stands for the test split in every table; `None` where that was not scored."""
        entries: list[HeadResult | ReferenceResult] = [*self.heads, *self.references]
        return next((metric for entry in entries if (metric := primary_metric(entry.test))), None)

    @property
    def winner(self) -> str:
        """Name of the head or reference that was selected."""
        name = self.selection.get("winner")
        return name if name in [reference.name for reference in self.references] else self.best.name

    @property
    def winning_heads(self) -> tuple[str, ...]:
        """Names of the heads of the setting that was chosen among all candidates; none if none of heads was."""
        settings = settings_of(self.heads, self.selection_metric)
        return next((one.names for one in settings if self.selection.get("winner") in one.names), ())

    @property
    def best_per_head(self) -> list[Family]:
        """The best setting of each head family, by its mean over seeds on validation."""
        return best_per_head(self.heads, self.selection_metric, self.selection.get("winner"))

    def correct_for_number(self) -> None:
        """Note beside every p-value of a comparison with the baseline what Holm's correction makes of it."""
        entries: list[HeadResult | ReferenceResult] = [*self.heads, *self.references]
        tested = [entry.test for entry in entries if entry.test and entry.name != self.baseline]
        for metric in PRIMARY:
            compared = [test for test in tested if f"{metric}_p" in test]
            for test, p in zip(compared, holm([test[f"{metric}_p"] for test in compared]), strict=True):
                test[f"{metric}_p_holm"] = p

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

    def table(self) -> Table:
        """One row per head, for the terminal."""
        return results_table(self)

    def to_json(self, history: bool = False) -> dict[str, Any]:
        """What `save` writes, as plain values, and the history of every head on demand; what is no number is `None`."""
        families = [asdict(family) for family in self.best_per_head]
        shown = self if history else replace(self, heads=[replace(head, history=[]) for head in self.heads])
        content = {**asdict(shown), "best": self.best.name, "best_per_head": families}
        for head in content["heads"] if not history else ():
            head.pop("history")
        return _without_nan(content)

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON, replacing the file in a single step; what is no number becomes null."""
        write_whole(path, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> SweepResults:
        """Read what `save` wrote, and the history beside it.

        Raises:
            ValueError: If the file is not a results file, or has an unsupported schema version; the text names it.
        """
        with untrusted(path, "the results of a run"):
            content = json.loads(Path(path).read_text("utf-8"))
            if content.get("schema_version") not in READABLE:
                raise ValueError(f"{path} has schema version {content.get('schema_version')}, this is {SCHEMA_VERSION}")
            for summary in ("best", "best_per_head", "over_seeds"):  # the last in files of before
                content.pop(summary, None)
            check_fields(content, cls)
            histories = read_history(Path(path).parent)
            content["heads"] = [HeadResult(**{"history": histories.get(head["name"], []), **head})
                                for head in content["heads"]]  # fmt: skip
            content["references"] = [ReferenceResult(**reference) for reference in content["references"]]
            results = cls(**content)
            if results.schema_version < SCHEMA_VERSION and results.selection:
                results.warnings.append(OLDER_RULE.format(results.schema_version))
            found = [head.test for head in results.heads] + [one.test for one in results.references]
            more = [metrics for head in results.heads for metrics in (head.validation, *head.tests.values())]
            for metrics in [*found, *more]:
                check_metrics(metrics or {})
            results.to_json()  # with the selection of the best head
        return results


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
