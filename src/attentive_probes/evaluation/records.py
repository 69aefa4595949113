"""Results as tidy tables: a row per run and head, and one per image, for studies and leaderboards."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attentive_probes.evaluation.families import PRIMARY
from attentive_probes.evaluation.results import HeadResult, SweepResults
from attentive_probes.evaluation.run_files import ANSWERS, ROWS
from attentive_probes.foreign_files import foreign
from attentive_probes.writing import whole_file, write_whole

STUDY, IMAGES = "study", "images.parquet"
# Beside the axes of a study, what one of its rows holds.
COLUMNS = (
    "cell", "backbone_name", "backbone_revision", "dataset_name", "dataset_revision", "splits", "train_images",
    "validation_images", "test_images", "adapter", "protocol", "metric", "head", "name", "pooling", "tokens", "options",
    "learning_rate", "weight_decay", "seed", "epochs", "is_selected", "validation", "test", "test_low", "test_high",
    "trained_parameters", "multiply_adds", "head_milliseconds", "token_bytes", "training_seconds", "watt_hours",
    "hardware", "date", "version", "command",
)  # fmt: skip


def add_rows(
    results: SweepResults,
    values: Mapping[str, str] | None = None,
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    energy: Mapping[str, float] | None = None,
    command: str = "",
) -> list[dict[str, Any]]:
    """The rows of a run: one per head, and one per reference.

    Args:
        results: The run.
        values: Axis -> entry, of a study.
        costs: Head -> what else it costs.
        energy: What the run took, if that was measured; of all its heads together.
        command: What repeats it.
    """
    shared = {**(values or {}), **_circumstances(results), **(energy or {}), "command": command}
    rows = []
    for head in results.heads:
        tests = {f"test.{name}": metrics.get("top1") for name, metrics in head.tests.items()}
        rows.append({**shared, **_of_head(head, results), **(costs or {}).get(head.name, {}), **tests})
    for one in results.references:
        own = {"head": one.name, "name": one.name, "pooling": one.reference["method"], "validation": one.validation}
        rows.append({**shared, **own, "seed": 0, "tokens": " ".join(one.reference["tokens"]), **_tested(one.test)})
    return rows


def _circumstances(results: SweepResults) -> dict[str, Any]:
    dataset, arguments, data = results.dataset, results.arguments, results.data
    splits = [dataset.get(f"{role}_split") for role in ("train", "validation", "test")]
    name = results.backbone.get("name") or ""
    is_marked = "SELECTED ON THE TEST" in results.protocol
    return {
        "backbone_name": Path(name).name if Path(name).is_absolute() else name,  # no path of a machine
        "backbone_revision": results.backbone.get("revision"),
        "dataset_name": dataset.get("name"),
        "dataset_revision": dataset.get("revision"),
        "splits": " / ".join(str(split or "held out") for split in splits),
        **{f"{role}_images": data.get(role, {}).get("images") for role in ("train", "validation", "test")},
        "adapter": results.adaptation,
        "protocol": "selected on test" if is_marked else results.selection.get("method", "selected on validation"),
        "epochs": arguments.get("num_train_epochs"),
        "hardware": results.hardware,
        "date": results.date,
        "version": results.versions.get("attentive-probes"),
    }


def _of_head(head: HeadResult, results: SweepResults) -> dict[str, Any]:
    return {
        "head": head.family or head.name,
        "name": head.name,
        "pooling": head.head["pooling"],
        "tokens": " ".join(head.head.get("tokens", ["patches"])),
        "options": json.dumps(head.head.get("options", {}), sort_keys=True),
        **{key: getattr(head, key) for key in ("learning_rate", "weight_decay", "seed")},
        "validation": head.validation.get(results.selection_metric),
        "trained_parameters": head.trainable_parameters,
        "training_seconds": head.seconds,
        **_tested(head.test),
    }


def _tested(test: Mapping[str, Any] | None) -> dict[str, Any]:
    metric = next((name for name in PRIMARY if test and name in test), None)
    if test is None or metric is None:
        return {}
    low, high = test.get(f"{metric}_interval") or (None, None)
    return {"metric": metric, "test": test[metric], "test_low": low, "test_high": high}


def mark_selected(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Mark the rows of the setting (rate, weight decay) with the best mean over seeds on validation, per head and run.

    Args:
        rows: Rows of a study.
        axes: Columns that tell its combinations apart.
    """
    rows = rows.reset_index(drop=True)
    setting = ["learning_rate", "weight_decay", "tokens", "options"]
    texts = rows.reindex(columns=[*axes, "head", *setting]).astype(object).fillna("").astype(str)
    sign = rows.reindex(columns=["metric"])["metric"].eq("mean_absolute_error").map({True: -1.0, False: 1.0})
    values = (sign * rows["validation"].astype(float)).fillna(-math.inf)
    is_selected = pd.Series(False, index=rows.index)
    for _, part in texts.groupby([*axes, "head"], sort=False):
        keys = part[setting].agg("|".join, axis=1)
        is_selected[part.index] = keys == values[part.index].groupby(keys, sort=False).mean().idxmax()
    return rows.assign(is_selected=is_selected)


def axes_of(rows: pd.DataFrame) -> list[str]:
    """The columns that are axes of a study."""
    return [column for column in rows.columns if column not in COLUMNS and not column.startswith("test.")]


def gather(folders: Iterable[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows of the runs that are done, and their answers image by image, where these were kept."""
    rows, images = [], []
    for folder in folders:
        path = folder / ROWS
        if path.exists():
            own = json.loads(path.read_text("utf-8"))["rows"]
            rows += [{"cell": folder.name, **row} for row in own]
            if (folder / ANSWERS).exists():
                images.append(pd.read_parquet(folder / ANSWERS).assign(cell=folder.name))
    frame = pd.DataFrame(rows)
    axes = axes_of(frame)
    frame = mark_selected(frame, axes) if len(frame) else frame
    ordered = [*axes, *(column for column in COLUMNS if column in frame), *(c for c in frame if c.startswith("test."))]
    return frame[ordered] if len(frame) else frame, pd.concat(images) if images else pd.DataFrame()


def save_records(records: tuple[pd.DataFrame, pd.DataFrame], folder: Path) -> None:
    """Write `study.parquet`, `study.csv` and `images.parquet`.

    Raises:
        OSError: If they cannot be written.
    """
    rows, images = records
    write_whole(folder / f"{STUDY}.csv", rows.to_csv(index=False))
    for name, frame in ((f"{STUDY}.parquet", rows), (IMAGES, images)):
        if len(frame):
            frame = frame.assign(head=frame["head"].astype(str))
            with whole_file(folder / name) as partial:
                frame.to_parquet(partial, index=False)


def load_records(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a study, from its folder, its CSV or its Parquet file.

    Raises:
        ValueError: If there are none.
    """
    place = Path(path)
    place = place / f"{STUDY}.csv" if place.is_dir() else place
    with foreign(place, "the rows of a study"):
        rows = pd.read_parquet(place) if place.suffix == ".parquet" else pd.read_csv(place)
        missing = {"head", "test", "validation", "is_selected"} - set(rows.columns)
        if missing:
            raise ValueError(f"it has no columns {sorted(missing)}")
    return rows
