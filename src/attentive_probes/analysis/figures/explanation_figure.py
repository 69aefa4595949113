"""Pictures of what a probe sees: one row per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from attentive_probes.analysis.explanations import Explanation, explain
from attentive_probes.analysis.figures.drawing import drawing, require_matplotlib
from attentive_probes.analysis.figures.image_grid import ImageGrid, grid_size
from attentive_probes.analysis.figures.overlays import evidence_overlay, map_overlay, shared_scales, winner_overlay
from attentive_probes.analysis.figures.style import EVIDENCE, MAPS, as_label
from attentive_probes.data.pixels.decode import open_file
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.files.writing import csv_file
from attentive_probes.probe.modeling_probe import ProbeForImageClassification

CELL, TEXT, TITLE, BARS = 1.2, 0.5, 0.24, 1.75  # inches
GRID = (CELL + 0.08, CELL, TEXT, TITLE)
RIGHT, WRONG = "#00786b", "#b3261e"


def explanation_figure(explanations: Sequence[Explanation], path: str | os.PathLike, max_maps: int = 8) -> None:
    """Draw images, the predictions, the winner map, the evidence, and the maps of the queries that added most.

    All maps of a picture share one scale, times uniform: a map that found nothing is dark. The evidence is what each
    place added to the logit of the best class (red) or took from it (blue), on one scale around zero. Queries stand in
    the order of what they added in that image.

    Args:
        explanations: Images as a probe sees them.
        path: Picture file to write, `.png`, `.svg` or `.pdf`.
        max_maps: Number of queries per image.

    Raises:
        ValueError: If there is no image.
    """
    if not explanations:
        raise ValueError("There is no image to draw.")
    columns = 3 + min(max_maps, len(explanations[0].maps))
    width, height = grid_size(len(explanations), columns, *GRID)
    with drawing(path, (width + BARS, height), layout=None) as figure:
        grid = ImageGrid(figure, *GRID)
        top, reach = shared_scales(explanations)
        for row, explanation in enumerate(explanations):
            _draw_row(grid, row, explanation, columns, top, reach)
        for column, title in enumerate(("image", "winner", "evidence")[:columns]):
            grid.title(column, title)
        _colour_bars(figure, top, reach, explanations)


def answer_figure(
    images: Sequence[Image.Image],
    predictions: Sequence[tuple[str, float]],
    labels: Sequence[str],
    path: str | os.PathLike,
) -> None:
    """Draw images side by side with the answer of a probe that has no maps over them.

    Args:
        images: The images, at least one.
        predictions: Name of the best class of each, with its probability.
        labels: Name of the right class of each.
        path: Picture file to write.
    """
    with drawing(path, grid_size(1, len(images), *GRID), layout=None) as figure:
        grid = ImageGrid(figure, *GRID)
        for column, (image, (answer, value), label) in enumerate(zip(images, predictions, labels, strict=True)):
            text = f"{as_label(answer)} {100 * value:.0f}%\nis {as_label(label)}"
            grid.image(0, column, image, text, color=RIGHT if answer == label else WRONG)


def _draw_row(grid: ImageGrid, row: int, explanation: Explanation, columns: int, top: float, reach: float) -> None:
    grid.image(row, 0, explanation.image, _caption(explanation), color=_colour(explanation))
    grid.image(row, 1, winner_overlay(explanation))
    grid.image(row, 2, evidence_overlay(explanation, reach))
    for column, query in zip(range(3, columns), explanation.order, strict=False):
        has_shares = len(explanation.added) == len(explanation.maps)
        added = f"\n{explanation.added[query]:+.2f}" if has_shares else ""
        grid.image(row, column, map_overlay(explanation, query, top), f"query {query + 1}{added}")


def _caption(explanation: Explanation) -> str:
    lines = [f"{as_label(name)} {100 * value:.0f}%" for name, value in explanation.predictions[:2]]
    return "\n".join([*lines, *([f"is {as_label(explanation.label)}"] if explanation.label is not None else [])])


def _colour(explanation: Explanation) -> str:
    if explanation.label is None:
        return "black"
    return RIGHT if explanation.label == explanation.predictions[0][0] else WRONG


def _colour_bars(figure: Any, top: float, reach: float, explanations: Sequence[Explanation]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    name = "added to the logit" if all(explanation.is_exact for explanation in explanations) else "gradient x input"
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


def explain_files(probe: ProbeForImageClassification, files: Sequence[Path], folder: Path) -> int:
    """Draw what a probe answered about each image, what each place added, and where its queries looked.

    Args:
        probe: A probe that reads patches.
        files: Image files; those that cannot be read are left out.
        folder: Where `<number>-<name>.png` of each goes.

    Returns:
        The number of pictures.

    Raises:
        ValueError: If the probe reads no patches.
    """
    require_matplotlib()
    count, digits = 0, len(str(len(files)))
    for number, path in enumerate(files):
        try:
            image = open_file(path, probe.backbone.num_channels)
        except ValueError:
            continue
        explanation_figure(explain(probe, [image]), folder / f"{number:0{digits}d}-{path.stem}.png")
        count += 1
    return count


def write_explanations(explanations: Sequence[Explanation], names: Sequence[str], path: Path) -> None:
    """Write the numbers of a picture, one row per image and query.

    Peak is the largest attention, times uniform; entropy is that over the patches, in nats.

    Args:
        explanations: Images as a probe sees them.
        names: What each image is called.
        path: `.csv` file.
    """
    columns = ("image", "label", "predicted", "score", "query", "rank", "group", "added", "peak", "entropy")
    with csv_file(path, columns, durable=False) as writer:
        for name, explanation in zip(names, explanations, strict=True):
            (predicted, score), order = explanation.predictions[0], explanation.order
            for query, attention in enumerate(explanation.maps):
                seen = attention[attention.isfinite()].clamp(min=0)
                added = f"{explanation.added[query]:.6g}" if len(explanation.added) == len(explanation.maps) else ""
                texts = [as_cell(text) for text in (name, explanation.label or "", predicted)]
                numbers = (f"{score:.6g}", query + 1, order.index(query) + 1, int(explanation.groups[query]) + 1)
                writer.writerow([*texts, *numbers, added, f"{seen.max():.6g}", f"{explanation.entropy[query]:.6g}"])
