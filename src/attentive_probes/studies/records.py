"""Results as tidy tables: a row per run and head, and one per image, for studies and leaderboards."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attentive_probes.evaluation.results import SCHEMA_VERSION, SweepResults
from attentive_probes.evaluation.runs.families import best_of, setting_key, value_of
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.run_files import HEAD_PREDICTIONS, ROWS
from attentive_probes.evaluation.runs.score import primary_metric, score_in
from attentive_probes.files.untrusted import untrusted
from attentive_probes.files.writing import whole_file, write_whole

logger = logging.getLogger(__name__)
STUDY, IMAGES = "study", "images.parquet"
# Beside the axes of a study, what one of its rows holds.
COLUMNS = (
    "cell", "backbone_name", "backbone_revision", "dataset_name", "dataset_revision", "content", "splits",
    "train_images", "validation_images", "test_images", "test_groups", "adapter", "protocol", "metric",
    "selection_metric", "head",
    "name", "pooling", "tokens", "options", "setting", "learning_rate", "query_learning_rate", "weight_decay", "seed",
    "epochs", "has_won", "is_selected", "validation", "test", "test_low", "test_high", "trained_parameters",
    "multiply_adds", "head_milliseconds", "token_bytes", "training_seconds", "watt_hours", "hardware", "date",
    "version", "command",
)  # fmt: skip
NUMBERS = (
    "train_images", "validation_images", "test_images", "test_groups", "learning_rate", "query_learning_rate",
    "weight_decay", "seed", "epochs", "validation", "test", "test_low", "test_high", "trained_parameters",
    "multiply_adds", "head_milliseconds", "token_bytes", "training_seconds", "watt_hours",
)  # fmt: skip
TRUTHS = ("has_won", "is_selected")
OLDER_RULE = (
    "Rows of an older release do not say what they were selected by: their settings are told apart by rate, weight "
    "decay, tokens and options, and selected by top1 or, where that is no metric, by the loss."
)


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
        own |= {"selection_metric": "top1", "setting": one.name, "has_won": results.winner == one.name}
        rows.append({**shared, **own, "seed": 0, "tokens": " ".join(one.reference["tokens"]), **_tested(one.test)})
    return rows


def _circumstances(results: SweepResults) -> dict[str, Any]:
    dataset, arguments, data = results.dataset, results.arguments, results.data
    splits = [dataset.get(f"{role}_split") for role in ("train", "validation", "test")]
    name = results.backbone.get("name") or ""
    is_marked = "SELECTED ON THE TEST" in results.protocol
    method = results.selection.get("method", "selected on validation")
    if results.selection and results.schema_version < SCHEMA_VERSION:
        method += " (by an older rule)"
    return {
        "backbone_name": Path(name).name if Path(name).is_absolute() else name,  # no path of a machine
        "backbone_revision": results.backbone.get("revision"),
        "dataset_name": dataset.get("name"),
        "dataset_revision": dataset.get("revision"),
        "content": data.get("test", {}).get("content"),
        "splits": " / ".join(str(split or "held out") for split in splits),
        **{f"{role}_images": data.get(role, {}).get("images") for role in ("train", "validation", "test")},
        "test_groups": data.get("test", {}).get("groups"),
        "adapter": results.adaptation,
        "protocol": "selected on test" if is_marked else method,
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
        **{key: getattr(head, key) for key in ("learning_rate", "query_learning_rate", "weight_decay", "seed")},
        "setting": setting_key(head),
        "has_won": head.name in results.winning_heads,
        "selection_metric": results.selection_metric,
        "validation": value_of(head, results.selection_metric),
        "trained_parameters": head.trainable_parameters,
        "training_seconds": head.seconds,
        **_tested(head.test),
    }


def _tested(test: Mapping[str, Any] | None) -> dict[str, Any]:
    score = score_in(test, primary_metric(test))
    if score is None:
        return {}
    low, high = score.interval or (None, None)
    return {"metric": score.metric, "test": score.value, "test_low": low, "test_high": high}


def mark_selected(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Mark the rows of the setting with the best mean over seeds on validation, per head and run; see `families`.

    Where a run chose a winner among all candidates, its setting stands for its head.

    Args:
        rows: Rows of a study.
        axes: Columns that tell its combinations apart.
    """
    rows = with_rule(rows.reset_index(drop=True))
    is_selected = pd.Series(False, index=rows.index)
    for _, part in rows.groupby([*axes, "head"], sort=False, dropna=False):
        values = part.groupby("setting", sort=False)["validation"].agg(list).to_dict()
        won = part.loc[part["has_won"], "setting"]
        chosen = won.iloc[0] if len(won) else best_of(values, part["selection_metric"].iloc[0])
        is_selected[part.index] = part["setting"] == chosen
    return rows.assign(is_selected=is_selected)


def with_rule(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that all say what they were selected by; see `OLDER_RULE` for those of older releases."""
    rows = rows.reindex(
        columns=list(dict.fromkeys([*rows.columns, "setting", "selection_metric", "metric", "has_won"]))
    )
    told = ["learning_rate", "weight_decay", "tokens", "options"]
    setting = rows.reindex(columns=told).astype(object).fillna("").astype(str).agg("|".join, axis=1)
    metric = rows["metric"].map({"top1": "top1"}).fillna("loss")
    metric = metric.where(rows["metric"].notna() & (rows["metric"] != ""), "top1")
    is_old = is_older(rows)
    return rows.assign(
        setting=setting.where(is_old, rows["setting"]),
        selection_metric=metric.where(is_old, rows["selection_metric"]),
        has_won=rows["has_won"].map(_truth),
        validation=rows["validation"].astype(float),
    )


def is_older(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of a release that did not note what they were selected by."""
    known = rows.reindex(columns=["selection_metric"])["selection_metric"]
    return known.isna() | (known == "")


def _truth(value: Any) -> bool:
    return str(value) == "True"


def axes_of(rows: pd.DataFrame) -> list[str]:
    """The columns that are axes of a study."""
    return [column for column in rows.columns if column not in COLUMNS and not column.startswith("test.")]


def gather(folders: Iterable[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows of the runs that are done, and their predictions image by image, where these were kept."""
    rows, images = [], []
    for folder in folders:
        path = folder / ROWS
        if path.exists():
            try:
                own = read_rows(path)["rows"]
            except ValueError as error:  # of a run that failed when it was done again
                logger.warning("%s It is left out of the tables.", error)
                continue
            rows += [{"cell": folder.name, **row} for row in own]
            if (folder / HEAD_PREDICTIONS).exists():
                images.append(pd.read_parquet(folder / HEAD_PREDICTIONS).assign(cell=folder.name))
    frame = pd.DataFrame(rows)
    if not len(frame):
        return frame, pd.DataFrame()
    axes = axes_of(frame)
    frame = mark_selected(as_stored(frame), axes)
    ordered = [*axes, *(column for column in COLUMNS if column in frame), *(c for c in frame if c.startswith("test."))]
    return frame[ordered], pd.concat(images) if images else pd.DataFrame()


def read_rows(path: Path) -> dict[str, Any]:
    """What a run of a study noted of itself: `identity` of its recipe, and `rows`.

    Raises:
        ValueError: If the file is damaged; the text names it.
    """
    with untrusted(path, "the rows of a run"):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content["rows"]):
            raise ValueError("it holds no rows")
        return content


def as_stored(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with every text as a text, nothing where there is none: `None`, `NA` and `010` are names."""
    texts = [name for name in rows if name not in (*NUMBERS, *TRUTHS) and not name.startswith("test.")]
    return rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "").map(str) for name in texts})


def save_records(records: tuple[pd.DataFrame, pd.DataFrame], folder: Path) -> None:
    """Write `study.parquet`, `study.csv` and `images.parquet`."""
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
    with untrusted(place, "the rows of a study"):
        if place.suffix == ".parquet":
            rows = pd.read_parquet(place)
        else:  # every cell as it is written: what is a number is known by its column
            rows = pd.read_csv(place, dtype=str, keep_default_na=False, na_values=[""])
        missing = {"head", "test", "validation"} - set(rows.columns)
        if missing:
            raise ValueError(f"it has no columns {sorted(missing)}")
        numbers = [name for name in rows if name in NUMBERS or name.startswith("test.")]
        rows = rows.assign(**{name: pd.to_numeric(rows[name]) for name in numbers})
    return mark_selected(as_stored(rows), axes_of(rows))
