"""Pictures of a study: accuracy against price, by depth, by shots, head against head, and ranks over all runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import HEADS, WIDE, as_label
from attentive_probes.studies.study_summary import Summary, ranks_test

MARKS = "osD^vP*X"
MEASURES = {"top1": "accuracy"}


def draw_study(summary: Summary, folder: Path) -> list[str]:
    """Draw every picture that the study has data for.

    Returns:
        Names of the files that were written to the folder.
    """
    drawn = []
    for name, draw in FIGURES.items():
        with drawing(folder / f"{name}.png", (1.5 * WIDE, 3.2)) as figure:
            draw(figure, summary)
        if figure.axes:
            drawn.append(f"{name}.png")
    return drawn


def _against(cost: str, label: str) -> Callable[[Any, Summary], None]:
    """A picture of accuracy over a cost: a panel per run (the EP paper's figure), a point per head."""

    def draw(figure: Any, summary: Summary) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        table = summary.table
        if cost not in table or not (table[cost] > 0).any():
            return
        runs = list(dict.fromkeys(summary.runs))[:8]
        heads = _places(summary)
        axes = _panels(figure, len(runs))
        for axis, run in zip(axes, runs, strict=True):
            for row in table[(summary.runs == run) & (table[cost] > 0)].to_dict("records"):
                place = heads[row["head"]]
                style = {"color": HEADS[place % len(HEADS)], "marker": MARKS[place // len(HEADS) % len(MARKS)]}
                bar = row["deviation"] if row["repeats"] > 1 else 0
                axis.errorbar(row[cost], row["test"], bar, capsize=2, markersize=5, linestyle="", **style,
                              label=as_label(row["head"]))  # fmt: skip
            axis.set(xscale="log", title=as_label(run, 40), xlabel=label)
            axis.xaxis.set_major_locator(LogLocator(numticks=4))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(_measure(summary))
        _legend(figure, axes)

    return draw


def _layers(figure: Any, summary: Summary) -> None:
    """Accuracy by the block that is read, a line per head, a panel per run."""
    found = summary.table.assign(run=summary.runs)
    found["block"] = [_block(tokens) for tokens in found["tokens"]]
    found = found.dropna(subset=["block"])
    found["family"] = [head.partition("@")[0] for head in found["head"]]
    if not len(found) or found.groupby(["run", "family"])["block"].nunique().max() < 2:
        return
    runs = list(dict.fromkeys(found["run"]))[:8]
    axes = _panels(figure, len(runs))
    for axis, run in zip(axes, runs, strict=True):
        for place, family in enumerate(dict.fromkeys(found["family"])):
            line = found[(found["run"] == run) & (found["family"] == family)].sort_values("block")
            if len(line) > 1:
                axis.errorbar(line["block"], line["test"], line["deviation"].fillna(0), capsize=2, marker="o",
                              color=HEADS[place % len(HEADS)], label=as_label(family))  # fmt: skip
        axis.set(xlabel="block", title=as_label(run, 40))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(_measure(summary))
    _legend(figure, axes)


def _shots(figure: Any, summary: Summary) -> None:
    """Accuracy by training images per class, where the axis `shots` has numbers."""
    if "shots" not in summary.axes:
        return
    found = summary.table.copy()
    found["count"] = pd.to_numeric(found["shots"], errors="coerce")
    found = found.dropna(subset=["count"])
    others = [axis for axis in summary.axes if axis != "shots"]
    found["run"] = found[others].astype(str).agg(", ".join, axis=1) if others else "all"
    if found["count"].nunique() < 2:
        return
    runs = list(dict.fromkeys(found["run"]))[:8]
    axes = _panels(figure, len(runs))
    for axis, run in zip(axes, runs, strict=True):
        for head, place in _places(summary).items():
            line = found[(found["run"] == run) & (found["head"] == head)].sort_values("count")
            axis.errorbar(line["count"], line["test"], line["deviation"].fillna(0), capsize=2, marker="o",
                          color=HEADS[place % len(HEADS)], label=as_label(head))  # fmt: skip
        axis.set(xlabel="images per class", title=as_label(run, 40), xscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(_measure(summary))
    _legend(figure, axes)


def _pairs(figure: Any, summary: Summary) -> None:
    """How much better each head (row) is than each other one (column), on average over the runs that have both."""
    table = summary.table.assign(run=summary.runs).pivot_table(index="run", columns="head", values="merit", sort=False)
    heads = list(table.columns)
    if len(heads) < 2 or summary.table["metric"].nunique() > 1:  # in several units there is no mean difference
        return
    gaps = np.array([[(table[one] - table[other]).mean() for other in heads] for one in heads])
    figure.set_size_inches(0.38 * len(heads) + 2.4, 0.34 * len(heads) + 1.6)
    axis = figure.subplots()
    bound = np.nanmax(np.abs(gaps)) or 1
    shown = axis.imshow(gaps, cmap="RdBu", vmin=-bound, vmax=bound)
    labels = [as_label(head) for head in heads]
    axis.set_xticks(range(len(heads)), labels, rotation=90)
    axis.set_yticks(range(len(heads)), labels)
    for (row, column), value in np.ndenumerate(gaps):
        if np.isfinite(value) and len(heads) <= 16:
            axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=5.5)
    figure.colorbar(shown, ax=axis, label="how much better the row is than the column")


def _gains(figure: Any, summary: Summary) -> None:
    """How much better than the baseline, a group of bars per run (ALF's figure by data set)."""
    if summary.baseline is None:
        return
    table = summary.table.assign(run=summary.runs)
    wide = table.pivot_table(index="run", columns="head", values="gain", sort=False).drop(columns=summary.baseline)
    if wide.empty:
        return
    errors = table.pivot_table(index="run", columns="head", values="error", sort=False) if "error" in table else None
    axis = figure.subplots()
    width = 0.8 / len(wide.columns)
    for number, head in enumerate(wide.columns):
        place = _places(summary)[head]
        where = np.arange(len(wide)) + (number - (len(wide.columns) - 1) / 2) * width
        bars = errors[head].reindex(wide.index) if errors is not None and head in errors else None
        axis.bar(where, wide[head], width, yerr=bars, color=HEADS[place % len(HEADS)], label=as_label(head),
                 hatch="//" if place >= len(HEADS) else None, error_kw={"elinewidth": 0.6})  # fmt: skip
    axis.set_xticks(range(len(wide)), [as_label(run, 40) for run in wide.index], rotation=20, ha="right")
    axis.set_ylabel(f"better than {as_label(summary.baseline)} by")
    axis.axhline(0, color="0.3", linewidth=0.6)
    _legend(figure, [axis])


def _ranks(figure: Any, summary: Summary) -> None:
    """Critical-difference diagram: mean ranks over runs; bars join heads that Conover's test cannot tell apart."""
    try:
        import scikit_posthocs
    except ImportError:
        return
    try:
        table, p = ranks_test(summary)
    except ValueError:
        return
    ranks = table.rank(axis=1, ascending=False).mean()
    pairs = scikit_posthocs.posthoc_conover_friedman(table, p_adjust="holm")
    axis = figure.subplots()
    scikit_posthocs.critical_difference_diagram(ranks, pairs, ax=axis, label_fmt_left="{label} ({rank:.1f}) ",
                                                label_fmt_right=" {label} ({rank:.1f})")  # fmt: skip
    axis.set_title(f"mean rank over {len(table)} runs; Friedman p = {p:.2g}; Conover's pairs, corrected by Holm")


FIGURES: dict[str, Callable[[Any, Summary], None]] = {
    "parameters": _against("trained_parameters", "trained parameters"),
    "seconds": _against("head_milliseconds", "ms per image, head alone"),
    "layers": _layers,
    "shots": _shots,
    "pairs": _pairs,
    "gains": _gains,
    "ranks": _ranks,
}


def _measure(summary: Summary) -> str:
    """What the vertical axis shows."""
    names = [MEASURES.get(metric, metric.replace("_", " ")) for metric in dict.fromkeys(summary.table["metric"])]
    return f"test {' or '.join(names)}"


def _places(summary: Summary) -> dict[str, int]:
    """Place of each head, which is its colour and mark in all pictures."""
    return {head: place for place, head in enumerate(dict.fromkeys(summary.table["head"]))}


def _block(tokens: str) -> int | None:
    """The block that a reading is about, if it is one alone."""
    found = {re.sub(r".*@", "", item) for item in str(tokens).split()}
    match = re.fullmatch(r"(?:block|premlp|stage):(\d+)", found.pop()) if len(found) == 1 else None
    return int(match.group(1)) if match else None


def _panels(figure: Any, count: int) -> list[Any]:
    rows = 1 if count <= 4 else 2
    columns = -(-count // rows)
    figure.set_size_inches(max(1.5 * WIDE, 1.7 * columns + 1.5), 2.6 * rows + 0.4)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).flatten().tolist()
    for axis in axes[count:]:
        axis.set_visible(False)
    return axes[:count]


def _legend(figure: Any, axes: list[Any]) -> None:
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside right upper", fontsize=6)
