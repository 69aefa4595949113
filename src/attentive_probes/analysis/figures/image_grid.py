"""Images in a grid with a text below each, drawn in one pair of axes: a pair for every image takes seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

MARGIN = 0.06  # inches left of the first column and around images


class ImageGrid:
    """A grid of images that fills a figure from its top left corner.

    Args:
        figure: A figure without layout engine, of the size that `size` gives.
        width: Of a cell in inches.
        height: Of its image, at most.
        text: Inches for the text below it.
        top: Inches for titles of columns.
    """

    def __init__(self, figure: Any, width: float, height: float, text: float, top: float = 0.0) -> None:
        self._width, self._height, self._text, self._top = width, height, text, top
        self._limits = dict(zip(("xlim", "ylim"), ((0, side) for side in figure.get_size_inches()), strict=True))
        self._axis = figure.add_axes((0, 0, 1, 1))
        self._axis.set(**self._limits)
        self._axis.axis("off")

    def image(self, row: int, column: int, pixels: Any, text: str = "", **style: Any) -> None:
        """An image, as large as its cell lets it be, and what stands below it, in the style of matplotlib's texts."""
        height, width = np.asarray(pixels).shape[:2]
        room = self._width - 2 * MARGIN
        scale = min(room / width, self._height / height)
        middle = self._middle(column)
        centre = self._limits["ylim"][1] - self._top - row * (self._height + self._text) - self._height / 2
        left, low = middle - scale * width / 2, centre - scale * height / 2
        box = (left, left + scale * width, low, low + scale * height)
        self._axis.imshow(pixels, cmap="gray", extent=box, aspect="auto")
        self._axis.set(**self._limits)  # an image sets them to its own
        self._axis.text(middle, low - 0.04, text, ha="center", va="top", **style)

    def title(self, column: int, text: str) -> None:
        """A text above a column."""
        low = self._limits["ylim"][1] - self._top + 0.04
        self._axis.text(self._middle(column), low, text, ha="center", va="bottom")

    def _middle(self, column: int) -> float:
        return MARGIN / 2 + (column + 0.5) * self._width


def grid_size(
    rows: int, columns: int, width: float, height: float, text: float, top: float = 0.0
) -> tuple[float, float]:
    """Width and height in inches of a figure for such a grid."""
    return MARGIN + columns * width, top + rows * (height + text)
