"""Tables of a study, for people: Markdown, LaTeX, CSV."""

from __future__ import annotations

import pandas as pd

from attentive_probes.checks import unknown_name
from attentive_probes.studies.study_summary import Summary

FORMATS = ("markdown", "latex", "csv")


def accuracy_table(summary: Summary, across: str | None = None) -> pd.DataFrame:
    """Test accuracies as texts, the mean and over several repeats its deviation: a row per head and run of the axes.

    Args:
        summary: The study.
        across: Axis whose entries stand side by side; by default the first with several.

    Raises:
        ValueError: If there is no such axis.
    """
    table, axes = summary.table, summary.axes
    if across is not None and across not in axes:
        raise ValueError(unknown_name("axis", across, axes))
    several = [axis for axis in axes if table[axis].nunique() > 1]
    across = across or (several[0] if several else None)
    rows = [axis for axis in several if axis != across]
    table = table.assign(text=[cell_text(row) for row in table.to_dict("records")], all="test")
    index = [*rows, "head"]
    wide = table.pivot(index=index, columns=across or "all", values="text")
    order = table.drop_duplicates(index)[index]
    columns = list(dict.fromkeys(table[across or "all"]))
    parameters = table.groupby(index, sort=False)["trained_parameters"].min() if "trained_parameters" in table else None
    wide = wide.loc[[tuple(row) if len(index) > 1 else row[0] for row in order.itertuples(index=False)], columns]
    if parameters is not None:
        wide.insert(0, "parameters", [_count(parameters.loc[place]) for place in wide.index])
    return wide.fillna("").reset_index().rename_axis(columns=None)


def cell_text(row: dict) -> str:
    """Accuracy, deviation over repeats, and, against the baseline, the gain with its error and whether it is sure."""
    text = f"{row['test']:.1f}"
    if row["repeats"] > 1:
        text += f" ± {row['deviation']:.1f}"
    if pd.notna(row.get("error")):
        text += f" ({row['gain']:+.1f} ± {row['error']:.1f}{'*' if row['p_holm'] < 0.05 else ''})"
    return text


def costs_table(summary: Summary) -> pd.DataFrame:
    """What each head costs, averaged over runs: trained parameters, multiply-adds, time, bytes of its tokens."""
    names = {
        "trained_parameters": "trained parameters",
        "multiply_adds": "multiply-adds per image",
        "head_milliseconds": "ms per image, head alone",
        "token_bytes": "bytes of tokens per image",
        "training_seconds": "training s, of the whole run",
        "watt_hours": "Wh, of the whole run",
    }
    known = {name: label for name, label in names.items() if name in summary.table}
    means = summary.table.groupby("head", sort=False)[list(known)].mean()
    exact = {"head_milliseconds": "{:.3f}", "watt_hours": "{:.2f}"}
    for name in known:
        means[name] = [exact.get(name, "{:,.0f}").format(v) if pd.notna(v) else "" for v in means[name]]
    return means.rename(columns=known).reset_index()


def render(table: pd.DataFrame, form: str) -> str:
    """A table as text.

    Raises:
        ValueError: If the form is unknown.
    """
    if form not in FORMATS:
        raise ValueError(unknown_name("form of a table", form, FORMATS))
    if form == "csv":
        return table.to_csv(index=False)
    if form == "latex":
        return table.to_latex(index=False, escape=True).replace("±", r"$\pm$")
    lines = [[str(value).replace("|", r"\|") for value in row] for row in [list(table.columns), *table.to_numpy()]]
    rule = ["---"] + ["---:"] * (len(table.columns) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]]) + "\n"


def _count(value: float) -> str:
    return f"{value:,.0f}" if pd.notna(value) else ""
