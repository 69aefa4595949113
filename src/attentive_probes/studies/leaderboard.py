"""A leaderboard of results from anywhere: what follows one protocol is ranked together, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from huggingface_hub import hf_hub_download

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.run_files import RECIPE, RESULTS
from attentive_probes.problems import SMALLER_IS_BETTER
from attentive_probes.studies.records import STUDY, add_rows, as_stored, axes_of, load_records, mark_selected
from attentive_probes.studies.study_summary import REPLICATES
from attentive_probes.studies.study_tables import render

# What numbers must share to be ranked together; `data` is the content of the test split, or its name.
PROTOCOL = (
    "data", "splits", "train_images", "validation_images", "test_images", "metric", "adapter", "protocol",
)  # fmt: skip
ENTRY = ("backbone_name", "backbone_revision", "head", "tokens", "options")
NAMES = ("dataset_name", "dataset_revision", "content")
RECORD = ("backbone_name", "content", "dataset_name", "head", "name", "seed", "date", "validation", "test")
SHOWN = {
    "rank": "rank", "backbone_name": "backbone", "backbone_revision": "revision", "head": "head", "run": "run",
    "test": "test", "validation": "validation", "trained_parameters": "parameters", "learning_rate": "rate",
    "epochs": "epochs", "seeds": "seeds", "date": "date", "command": "repeat with", "source": "from",
}  # fmt: skip


def collect(places: Sequence[str]) -> pd.DataFrame:
    """Rows of runs, studies and Hub repositories.

    Args:
        places: Folders of runs, `results.json` files, folders or tables of studies, Hub ids of probes with results.

    Raises:
        ValueError: If a place has no results.
    """
    found = []
    for place in places:
        path = Path(place)
        if path.suffix in (".csv", ".parquet") or (path / f"{STUDY}.csv").exists():
            rows = load_records(path)
        else:
            file = path / RESULTS if path.is_dir() else path
            file = file if file.exists() else _downloaded(place)
            recipe = file.parent / RECIPE
            command = f"attentive-probes train {recipe}" if recipe.exists() and file.parent == path else ""
            rows = mark_selected(pd.DataFrame(add_rows(SweepResults.load(file), command=command)), [])
        found.append(as_stored(rows.assign(source=place)))
    return pd.concat(_each_once(found), ignore_index=True)


def _each_once(parts: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """What each place adds to those before it: a run may be given by its folder, its study and its probes."""
    known, kept = set[str](), []
    for rows in parts:
        cells = rows.reindex(columns=list(RECORD)).to_dict("records")
        keys = pd.Series(["|".join(map(_short, row.values())) for row in cells], index=rows.index, dtype=object)
        kept.append(rows[~keys.isin(known)])
        known |= set(keys)
    return kept


def rank(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The selected setting of every head, ranked by its mean on test among those of the same protocol.

    Means are over seeds and draws alone: every other axis of a study keeps its entries apart.

    Args:
        rows: As `collect` gives them.

    Returns:
        Pairs of what a protocol is, and its table, the best first.

    Raises:
        ValueError: If none of the rows was tested.
    """
    axes = [axis for axis in axes_of(rows) if axis not in (*REPLICATES, "source")]
    needed = [*PROTOCOL[1:], *ENTRY, *NAMES, "command", "trained_parameters", "epochs", "date"]
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *needed])))
    rows = rows[rows["is_selected"].astype(bool) & rows["test"].notna()].copy()
    if not len(rows):
        raise ValueError("None of these results has a scored test split.")
    texts = [*PROTOCOL[1:], *ENTRY, *NAMES, *axes, "command", "source", "date"]
    rows[texts] = rows[texts].astype(object).where(rows[texts].notna(), "").map(_text)
    named = rows["dataset_name"] + [f"@{revision}" if revision else "" for revision in rows["dataset_revision"]]
    rows = rows.assign(data=rows["content"].where(rows["content"] != "", named), named=named)
    rows["run"] = [", ".join(value for value in row if value) for row in rows[axes].to_numpy()] if axes else ""
    found = []
    for protocol, group in rows.groupby(list(PROTOCOL), sort=False):
        means = {name: (name, "mean") for name in ("test", "validation", "trained_parameters")}
        firsts = {name: (name, "first") for name in ("command", "date", "run")}
        all_of = {
            "seeds": ("seed", _listed),
            "learning_rate": ("learning_rate", _listed),
            "epochs": ("epochs", _listed),
        }
        spread = {"deviation": ("test", "std")}
        table = group.groupby([*ENTRY, *axes, "source"], sort=False).agg(**means, **firsts, **all_of, **spread)
        is_error = protocol[PROTOCOL.index("metric")] in SMALLER_IS_BETTER
        table = table.reset_index().sort_values("test", ascending=is_error, kind="stable")
        table.insert(0, "rank", table["test"].rank(method="min", ascending=is_error).astype(int))
        found.append((_title(group["named"].iloc[0], dict(zip(PROTOCOL, protocol, strict=True))), table))
    return found


def leaderboard_markdown(groups: Sequence[tuple[str, pd.DataFrame]]) -> str:
    """The leaderboard as Markdown."""
    lines = ["<!-- generated by `attentive-probes leaderboard` -->", ""]
    for title, table in groups:
        columns = {name: label for name, label in SHOWN.items() if name != "run" or (table["run"] != "").any()}
        shown = table.rename(columns=columns)[list(columns.values())].assign(
            test=[
                f"{v:.2f}" + (f" ± {d:.2f}" if pd.notna(d) else "") for v, d in table[["test", "deviation"]].to_numpy()
            ],
            validation=[f"{value:.2f}" if pd.notna(value) else "" for value in table["validation"]],
            parameters=[f"{value:,.0f}" if pd.notna(value) else "" for value in table["trained_parameters"]],
        )
        lines += [f"### {title}", "", render(shown, "markdown")]
    return "\n".join(lines)


def _title(name: str, protocol: dict[str, str]) -> str:
    sizes = " / ".join(protocol[f"{role}_images"] or "?" for role in ("train", "validation", "test"))
    how = ", ".join(protocol[key] for key in ("metric", "adapter", "protocol"))
    return f"{name}: {protocol['splits']} ({sizes} images), {how}"


def _listed(values: pd.Series) -> str:
    return " ".join(dict.fromkeys(f"{value:g}" for value in values.dropna()))


def _short(value: object) -> str:
    """A cell as it is compared: numbers go through files."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _downloaded(place: str) -> Path:
    try:
        return Path(hf_hub_download(place, RESULTS))
    except Exception as error:  # whatever the client raises of what is no repository
        raise ValueError(
            f"{place!r} is neither the folder of a run or a study, nor a Hub repository with {RESULTS}: {error}"
        ) from error
