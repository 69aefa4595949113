"""What is wrong with images and labels: what an audit found, written down, and what to leave out for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.evaluation.runs.run_files import AUDIT, FINDINGS
from attentive_probes.files.writing import csv_file, write_whole

COPY = 0.95  # score of a pair from which on it is one image, whoever looks
JUDGE = "accuracy of what judges labels"
COLUMNS = ("kind", "split", "row", "file", "label", "other_split", "other_row", "other_file", "likely", "score")
KINDS = {
    "leak": "in two splits, or nearly so: what is learned of it in one is known in the other",
    "duplicate": "twice in one split, or nearly so",
    "label": "likely another class than its label says",
    "outlier": "like no other image",
}


@dataclass(frozen=True)
class Finding:
    """One thing about one image, or about a pair.

    Args:
        kind: A key of `KINDS`.
        split: Split of the image.
        row: Its row in what was read.
        place: Its place in the split as it was opened.
        file: Its file, if it has one.
        label: Name of its class.
        score: How sure: 1 less the distance of a pair over the usual one (1 for equal bytes), the margin of a label,
            the robust deviations of an outlier.
        other_split: Split of the other image of a pair.
        other_row: Row of that.
        other_place: Its place in its split.
        other_file: File of that.
        likely: The class that it likely is of; of a pair, the class of the other one, if it is another.
    """

    kind: str
    split: str
    row: int
    place: int
    file: str
    label: str
    score: float
    other_split: str = ""
    other_row: int | str = ""
    other_place: int = 0
    other_file: str = ""
    likely: str = ""


@dataclass
class Audit:
    """What was found.

    Args:
        findings: The surest first, by kind.
        confused: Pairs of classes that are taken for each other: their names, and both shares.
        classes: Split -> images by class.
        settings: What it was found by.
    """

    findings: list[Finding]
    confused: list[dict[str, Any]]
    classes: dict[str, dict[str, int]]
    settings: dict[str, Any] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of a kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest one that there is, in training."""
        counts = [count for count in self.classes.get("train", {}).values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def warnings(self) -> list[str]:
        """What makes the numbers of a run on these images less sure."""
        found = []
        ends = [
            (finding.split, finding.row) if finding.split == "test" else (finding.other_split, finding.other_row)
            for finding in self.of_kind("leak")
            if finding.score >= COPY
        ]
        if leaked := len({row for split, row in ends if split == "test"}):
            found.append(
                f"{leaked} images of the test split are, as good as equal, in another split as well: what is known of "
                "them flatters its accuracy (audit.csv; attentive-probes audit --drop)."
            )
        return found

    def save(self, folder: Path) -> None:
        """Write `audit.json`, a summary, and `audit.csv`, a row per finding."""
        counts = {kind: len(self.of_kind(kind)) for kind in KINDS}
        summary = {"found": counts, "confused": self.confused, "classes": self.classes, "settings": self.settings}
        write_whole(folder / AUDIT, json.dumps(summary, indent=2) + "\n", durable=False)
        with csv_file(folder / FINDINGS, COLUMNS, durable=False) as writer:
            for finding in self.findings:
                values = asdict(finding) | {"score": f"{finding.score:.4f}"}
                writer.writerow([as_cell(str(values[name])) for name in COLUMNS])

    def to_drop(self, kinds: Sequence[str] = ("leak", "duplicate")) -> dict[str, set[int]]:
        """Split -> rows to leave out: of a pair the later one, and of a leak the one that is in training.

        Labels and outliers of the test split stay, for leaving out what is hard would flatter every number.
        """
        found: dict[str, set[int]] = {}
        for finding in self.findings:
            if finding.kind not in kinds or (finding.kind in ("label", "outlier") and finding.split == "test"):
                continue
            ends = [(finding.split, finding.row)]
            if finding.other_split:
                ends.append((finding.other_split, int(finding.other_row)))
            order = ("train", "validation", "test")
            split, row = min(ends, key=lambda end: (order.index(end[0]), -end[1]))
            found.setdefault(split, set()).add(row)
        return found
