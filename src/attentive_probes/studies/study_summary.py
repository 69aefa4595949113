"""What a study says: means over seeds and draws, and paired comparisons with the baseline, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from attentive_probes.checks import unknown_name
from attentive_probes.evaluation.runs.families import cost
from attentive_probes.scores.statistics import clustered_error, holm, num_draws, student_p
from attentive_probes.studies.records import IMAGES, axes_of, load_records

REPLICATES = ("draw", "seed")  # axes that repeat a run
COSTS = ("trained_parameters", "multiply_adds", "head_milliseconds", "token_bytes", "training_seconds", "watt_hours")


@dataclass(frozen=True)
class Summary:
    """One row per head and run of the axes.

    Args:
        table: The axes, `head`, `tokens`, `learning_rate`, `validation`, `metric`, `test`, `deviation` and `repeats`
            over seeds and draws, `merit` (what `test` says with the sign by which large is good), the costs, and
            accuracies on further test splits; with a baseline also `gain`, and where predictions were kept image by
            image its standard `error` and `p_holm`, corrected for the heads of the same run.
        axes: Columns that tell runs apart, but for those that repeat them.
        baseline: Head that the others are compared with.
    """

    table: pd.DataFrame
    axes: list[str]
    baseline: str | None

    @property
    def runs(self) -> pd.Series:
        """The run of each row, as a text."""
        if not self.axes:
            return pd.Series("all", self.table.index)
        return self.table[self.axes].astype(str).agg(", ".join, axis=1)


def summarize(rows: pd.DataFrame, images: pd.DataFrame | None = None, baseline: str | None = None) -> Summary:
    """What the selected settings of all heads reach and cost, and how they compare with the baseline.

    Args:
        rows: Rows of a study, see `records`.
        images: Its predictions image by image, for the errors of comparisons.
        baseline: Head that the others are compared with.

    Raises:
        ValueError: If there is no such head.
    """
    axes = [axis for axis in axes_of(rows) if axis not in REPLICATES]
    if baseline is not None and baseline not in set(rows["head"]):
        raise ValueError(unknown_name("baseline", baseline, dict.fromkeys(rows["head"])))
    chosen = rows[rows["is_selected"].astype(bool) & rows["test"].notna()].copy()
    chosen[axes] = chosen[axes].astype(str)
    keys = [*axes, "head"]
    if "metric" not in chosen:
        chosen["metric"] = "top1"
    means = {name: (name, "mean") for name in chosen if name in COSTS or name.startswith("test.")}
    firsts = {name: (name, "first") for name in ("tokens", "learning_rate", "metric")}
    scores = {"validation": ("validation", "mean"), "test": ("test", "mean")}
    over = {"deviation": ("test", "std"), "repeats": ("test", "size")}
    table = chosen.groupby(keys, sort=False, dropna=False).agg(**firsts, **scores, **over, **means).reset_index()
    table["merit"] = [-cost(value, metric) for value, metric in zip(table["test"], table["metric"], strict=True)]
    if baseline is not None:
        base = table[table["head"] == baseline][[*axes, "merit"]].rename(columns={"merit": "gain"})
        table = table.merge(base, on=axes, how="left") if axes else table.assign(gain=float(base["gain"].iloc[0]))
        table["gain"] = table["merit"] - table["gain"]
        if images is not None and len(images):
            table = table.merge(_comparisons(chosen, images, axes, baseline), on=keys, how="left")
    return Summary(table, axes, baseline)


def by_image(chosen: pd.DataFrame, images: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """How often each head was right about each image, over seeds and draws: columns are heads, rows runs and images."""
    names = chosen[["cell", "name", "head", *axes]].astype({"name": str})
    joined = images.astype({"head": str}).merge(
        names, left_on=["cell", "head"], right_on=["cell", "name"], suffixes=("_run", "")
    )
    return joined.pivot_table(index=[*axes, "row"], columns="head", values="correct", aggfunc="mean", sort=False)


def _comparisons(chosen: pd.DataFrame, images: pd.DataFrame, axes: list[str], baseline: str) -> pd.DataFrame:
    right = by_image(chosen, images, axes)
    groups = _groups(chosen, images, axes)
    runs = right.groupby(level=axes, sort=False) if axes else [((), right)]
    rows = []
    for place, frame in runs:
        others = [head for head in frame if head != baseline and frame[head].notna().any()]
        if baseline not in frame or frame[baseline].isna().all():
            continue
        errors, ps = {}, {}
        for head in others:
            gap = (frame[head] - frame[baseline]).dropna()
            own = None if groups is None else groups.loc[gap.index].to_numpy()
            errors[head] = clustered_error(gap.to_numpy(), own)
            ps[head] = student_p(gap.mean(), errors[head], num_draws(len(gap), own))
        values = dict(zip(axes, place if isinstance(place, tuple) else (place,), strict=True))
        corrected = dict(zip(others, holm([ps[head] for head in others]), strict=True))
        rows += [{**values, "head": h, "error": 100 * errors[h], "p_holm": corrected[h]} for h in others]
    return pd.DataFrame(rows, columns=[*axes, "head", "error", "p_holm"])


def _groups(chosen: pd.DataFrame, images: pd.DataFrame, axes: Sequence[str]) -> pd.Series | None:
    """What each image belongs to, by run and row; `None` if no run knows. Where one does not, images are alone."""
    if "group" not in images or images["group"].isna().all():
        return None
    runs = chosen[["cell", *axes]].drop_duplicates("cell")
    joined = images[["cell", "row", "group"]].drop_duplicates(["cell", "row"]).merge(runs, on="cell")
    alone = "row " + joined["row"].astype(str)
    return joined.assign(group=joined["group"].fillna(alone)).groupby([*axes, "row"], sort=False)["group"].first()


def ranks_test(summary: Summary) -> tuple[pd.DataFrame, float]:
    """Merits by run (row) and head (column), of the heads that all runs have, and the p-value of Friedman's test.

    Raises:
        ValueError: If fewer than three heads or two runs can be compared.
    """
    from scipy.stats import friedmanchisquare

    named = summary.table.assign(run=summary.runs)
    table = named.pivot_table(index="run", columns="head", values="merit", sort=False).dropna(axis=1)
    if table.shape[0] < 2 or table.shape[1] < 3:
        raise ValueError(f"Ranks need two runs and three heads that all of them have; these are {table.shape}.")
    return table, float(friedmanchisquare(*(table[head] for head in table)).pvalue)


def load_summary(place: Path, baseline: str | None = None) -> Summary:
    """The summary of the rows of a study, with errors of comparisons where the predictions lie beside them.

    Args:
        place: Its folder, or its CSV or Parquet file.
        baseline: Head that the others are compared with.

    Raises:
        ValueError: If there are no rows, or no such head.
    """
    images = (place if place.is_dir() else place.parent) / IMAGES
    return summarize(load_records(place), pd.read_parquet(images) if images.exists() else None, baseline)
