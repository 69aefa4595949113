"""Opening, styling and saving a picture: every picture of the project is drawn in this one context."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from attentive_probes.analysis.figures.style import SETTINGS
from attentive_probes.files.writing import whole_file
from attentive_probes.machine.installation import how_to_install


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Check that matplotlib is installed, before anything that is to be drawn is computed."""
    if not has_matplotlib():
        raise ImportError(f"Pictures need matplotlib: {how_to_install('plots')}.")


@contextmanager
def drawing(
    path: str | os.PathLike | io.StringIO,
    size: tuple[float, float],
    *,
    layout: Literal["constrained"] | None = "constrained",
) -> Iterator[Any]:
    """An empty matplotlib figure in the style of the project; at the end of the block it is saved.

    A figure without axes is not saved: there was nothing to draw.

    Args:
        path: Picture file, in the format that its name ends with, written in one step; or a text buffer, for SVG.
        size: Width and height in inches.
        layout: Layout engine of matplotlib; `None` for pictures that place their axes themselves.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout=layout)
        yield figure
        if not figure.axes:
            return
        if isinstance(path, io.StringIO):
            # Without its date, the same picture is the same text.
            figure.savefig(path, format="svg", metadata={"Date": None})
            return
        with whole_file(path, durable=False) as partial:
            figure.savefig(partial, dpi=150, format=Path(path).suffix.removeprefix(".") or "png")
