"""Pictures, with matplotlib (extra `plots`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attentive_probes.analysis.figures.style import WIDE, as_label, colours_of, styled
from attentive_probes.files.writing import whole_file
from attentive_probes.machine.installation import how_to_install


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Check that matplotlib can be imported.

    Raises:
        ImportError: If not; the text names the extra to install.
    """
    if not has_matplotlib():
        raise ImportError(f"Pictures need matplotlib: {how_to_install('plots')}.")


def online_figure(history: Sequence[Mapping[str, float]], path: str | os.PathLike, metric: str = "top1") -> None:
    """Draw what online probes reached while their backbone was trained.

    Args:
        history: A row per look: `step`, and `<head>/<metric>` of each head, as `OnlineProbesCallback.history` holds.
        path: Picture file to write.
        metric: What is drawn.

    Raises:
        ValueError: If there is no row.
        ImportError: If matplotlib is missing.
    """
    require_matplotlib()
    if not history:
        raise ValueError("There is nothing to draw: the history is empty.")
    names = [name for key in history[0] for name, _, found in [key.rpartition("/")] if found == metric]
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDE, 2.6), layout="constrained")
        axis = figure.subplots()
        for name, colour in colours_of(names).items():
            values = [row[f"{name}/{metric}"] for row in history]
            axis.plot([row["step"] for row in history], values, marker=".", color=colour, label=as_label(name, 60))
        axis.set(xlabel="training step of the backbone", ylabel=f"validation {metric}")
        axis.grid(alpha=0.3)
        axis.legend()
        save_figure(figure, path)


def save_figure(figure: Any, path: str | os.PathLike, dpi: int = 150) -> None:
    """Write a figure in one step, in the format that the name of the file ends with.

    Raises:
        OSError: If it cannot be written.
    """
    with whole_file(path, durable=False) as partial:
        figure.savefig(partial, dpi=dpi, format=Path(path).suffix.removeprefix(".") or "png")
