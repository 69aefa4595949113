"""What online probes reached while their backbone was trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import WIDE, as_label, colours_of


def online_figure(history: Sequence[Mapping[str, float]], path: str | os.PathLike, metric: str = "top1") -> None:
    """Draw a metric of online probes over the training steps of their backbone.

    Args:
        history: A row per evaluation: `step`, and `<head>/<metric>` of each head, as `OnlineProbesCallback.history`
            holds.
        path: Picture file to write.
        metric: The metric that is drawn.

    Raises:
        ValueError: If the history is empty.
    """
    if not history:
        raise ValueError("There is nothing to draw: the history is empty.")
    names = [name for key in history[0] for name, _, found in [key.rpartition("/")] if found == metric]
    steps = [row["step"] for row in history]
    with drawing(path, (WIDE, 2.6)) as figure:
        axis = figure.subplots()
        for name, colour in colours_of(names).items():
            values = [row[f"{name}/{metric}"] for row in history]
            axis.plot(steps, values, marker=".", color=colour, label=as_label(name, 60))
        axis.set(xlabel="training step of the backbone", ylabel=f"validation {metric}")
        axis.grid(alpha=0.3)
        axis.legend()
