"""Pictures of what a probe sees: one row per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from attentive_probes.analysis.explanations import Explanation
from attentive_probes.analysis.figures.overlays import evidence_overlay, map_overlay, shared_scales, winner_overlay
from attentive_probes.analysis.figures.plots import require_matplotlib, save_figure
from attentive_probes.analysis.figures.style import EVIDENCE, MAPS, as_label, styled
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.files.writing import csv_file

CELL, STEP, TEXT, TITLE, BARS = 1.2, 1.28, 0.5, 0.24, 1.75  # inches
RIGHT, WRONG = "#00786b", "#b3261e"


def explanation_figure(looks: Sequence[Explanation], path: str | os.PathLike, max_maps: int = 8) -> None:
    """Draw images, the answers, the winner map, the evidence, and the maps of the queries that added most.

    All maps of a picture share one scale, times uniform: a map that found nothing is dark. The evidence is what each
    place added to the logit of the best class (red) or took from it (blue), on one scale around zero. Queries stand in
    the order of what they added in that image.

    Args:
        looks: Images as a probe sees them.
        path: Picture file to write, `.png`, `.svg` or `.pdf`.
        max_maps: Number of queries per image.

    Raises:
        ValueError: If there is no image.
        ImportError: If matplotlib is missing.
    """
    require_matplotlib()
    if not looks:
        raise ValueError("There is no image to draw.")
    with styled():
        from matplotlib.figure import Figure

        columns = 3 + min(max_maps, len(looks[0].maps))
        figure = Figure(figsize=(STEP * columns + BARS, (CELL + TEXT) * len(looks) + TITLE))
        axes = _cells(figure, len(looks), columns)
        top, reach = shared_scales(looks)
        for row, look in zip(axes, looks, strict=True):
            _draw_row(row, look, top, reach)
        for axis, title in zip(axes[0], ("image", "winner", "evidence"), strict=False):
            axis.set_title(title, pad=3)
        _colour_bars(figure, top, reach, looks)
        save_figure(figure, path)


def _cells(figure: Any, rows: int, columns: int) -> list[list[Any]]:
    """Axes of equal size on a grid, without ticks: laid out here, for a layout engine takes seconds."""
    width, height = figure.get_size_inches()
    cells = []
    for row in range(rows):
        bottom = height - TITLE - CELL - row * (CELL + TEXT)
        boxes = [((0.06 + STEP * i) / width, bottom / height, CELL / width, CELL / height) for i in range(columns)]
        cells.append([figure.add_axes(box, xticks=[], yticks=[]) for box in boxes])
    for axis in (axis for row_of_axes in cells for axis in row_of_axes):
        axis.axis("off")
    return cells


def _write_below(axis: Any, text: str, colour: str = "black") -> None:
    axis.text(0.5, -0.04, text, color=colour, transform=axis.transAxes, ha="center", va="top")


def answer_figure(
    images: Sequence[Image.Image], answers: Sequence[tuple[str, float]], labels: Sequence[str], path: str | os.PathLike
) -> None:
    """Draw images side by side with the answer of a probe that has no maps over them.

    Args:
        images: The images, at least one.
        answers: Name of the best class of each, with its probability.
        labels: Name of the right class of each.
        path: Picture file to write.

    Raises:
        ImportError: If matplotlib is missing.
    """
    require_matplotlib()
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(STEP * len(images), CELL + TEXT + TITLE))
        (axes,) = _cells(figure, 1, len(images))
        for axis, image, (answer, value), label in zip(axes, images, answers, labels, strict=True):
            axis.imshow(image, cmap="gray")
            colour = RIGHT if answer == label else WRONG
            _write_below(axis, f"{as_label(answer)} {100 * value:.0f}%\nis {as_label(label)}", colour)
        save_figure(figure, path)


def _draw_row(row: Sequence[Any], look: Explanation, top: float, reach: float) -> None:
    for axis, pixels in zip(row, (look.image, winner_overlay(look), evidence_overlay(look, reach)), strict=False):
        axis.imshow(pixels, cmap="gray")
    _write_below(row[0], _caption(look), _colour(look))
    for axis, query in zip(row[3:], look.order, strict=False):
        axis.imshow(map_overlay(look, query, top))
        added = f"\n{look.added[query]:+.2f}" if len(look.added) == len(look.maps) else ""
        _write_below(axis, f"query {query + 1}{added}")


def _caption(look: Explanation) -> str:
    lines = [f"{as_label(name)} {100 * value:.0f}%" for name, value in look.answers[:2]]
    return "\n".join([*lines, *([f"is {as_label(look.label)}"] if look.label is not None else [])])


def _colour(look: Explanation) -> str:
    if look.label is None:
        return "black"
    return RIGHT if look.label == look.answers[0][0] else WRONG


def _colour_bars(figure: Any, top: float, reach: float, looks: Sequence[Explanation]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    name = "added to the logit" if all(look.is_exact for look in looks) else "gradient x input"
    width, height = figure.get_size_inches()
    length = min(0.8 * height, 3.0)
    for place, (norm, colours, label) in enumerate(
        (
            (Normalize(-reach, reach), EVIDENCE, f"{name} (per patch)"),
            (Normalize(0, top), MAPS, "attention, times uniform"),
        )
    ):
        box = ((width - BARS + 0.08 + 0.84 * place) / width, (height - length) / 2 / height, 0.12 / width)
        figure.colorbar(ScalarMappable(norm, colours), cax=figure.add_axes((*box, length / height)), label=label)


def write_explanations(looks: Sequence[Explanation], names: Sequence[str], path: Path) -> None:
    """Write the numbers of a picture, one row per image and query.

    Peak is the largest attention, times uniform; entropy is that over the patches, in nats.

    Args:
        looks: Images as a probe sees them.
        names: What each image is called.
        path: `.csv` file.

    Raises:
        OSError: If it cannot be written.
    """
    columns = ("image", "label", "predicted", "score", "query", "rank", "group", "added", "peak", "entropy")
    with csv_file(path, columns, durable=False) as writer:
        for name, look in zip(names, looks, strict=True):
            (predicted, score), order = look.answers[0], look.order
            for query, attention in enumerate(look.maps):
                seen = attention[attention.isfinite()].clamp(min=0)
                added = f"{look.added[query]:.6g}" if len(look.added) == len(look.maps) else ""
                texts = [as_cell(text) for text in (name, look.label or "", predicted)]
                numbers = (f"{score:.6g}", query + 1, order.index(query) + 1, int(look.groups[query]) + 1)
                writer.writerow([*texts, *numbers, added, f"{seen.max():.6g}", f"{look.entropy[query]:.6g}"])
