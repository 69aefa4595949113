"""Backbones and heads by accuracy and price, and what more images would bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import WIDE, as_label, colours_of
from attentive_probes.choosing.learning_curve import LearningCurve

MARKS = "osD^vP*X"


def choice_figure(table: Sequence[Mapping[str, Any]], curve: LearningCurve | None, path: Path) -> None:
    """Draw the candidates of a choice over the time of their backbone, and the learning curve of the winner.

    Args:
        table: Rows as `Chosen.table` has them.
        curve: The curve, if there is one.
        path: Picture file to write.
    """
    colours = colours_of(dict.fromkeys(row["backbone"] for row in table))
    marks = {head: MARKS[i % len(MARKS)] for i, head in enumerate(dict.fromkeys(row["head"] for row in table))}
    with drawing(path, (1.5 * WIDE, 2.8)) as figure:
        from matplotlib.lines import Line2D
        from matplotlib.ticker import LogLocator, NullLocator

        axes = figure.subplots(1, 2)
        for row in table:
            style = {"color": colours[row["backbone"]], "marker": marks[row["head"]], "capsize": 2}
            face = None if row["on_front"] else "white"
            axes[0].errorbar(
                row.get("milliseconds_at_64", 0),
                row["accuracy"],
                row["error"],
                markersize=5,
                markerfacecolor=face,
                **style,
            )
        axes[0].set(xlabel="ms per image, 64 at a time", ylabel="accuracy, images not learned from", xscale="log")
        if curve is not None:
            axes[1].plot(curve.sizes, curve.accuracies, marker="o", color="black")
            for size, (value, low, high) in curve.expected.items():
                reach = [[value - low], [high - value]] if low == low else None  # NaN: not known
                axes[1].errorbar(size, value, reach, marker="o", color="0.5", capsize=2)
            axes[1].set(xlabel="training images; grey is extrapolated", ylabel="accuracy of the winner", xscale="log")
            axes[1].set_xticks([*curve.sizes, *curve.expected])
            axes[1].xaxis.set_major_formatter("{x:,.0f}")
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].xaxis.set_major_formatter("{x:g}")
        for axis in axes:
            axis.xaxis.set_minor_locator(NullLocator())
            axis.grid(alpha=0.3)
        entries = [
            Line2D([], [], color=colour, label=as_label(Path(name).name, 30)) for name, colour in colours.items()
        ]
        entries += [Line2D([], [], color="0.3", marker=m, linestyle="", label=as_label(h)) for h, m in marks.items()]
        figure.legend(handles=entries, loc="outside right upper")
