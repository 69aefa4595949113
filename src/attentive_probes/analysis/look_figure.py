"""Pictures of what a probe sees: one row per image."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from attentive_probes.analysis.looks import Look
from attentive_probes.analysis.plots import require_matplotlib, save_figure
from attentive_probes.analysis.style import EVIDENCE, GROUPS, MAPS, as_label, styled
from attentive_probes.evaluation.prediction import as_cell
from attentive_probes.writing import whole_file

CELL = 1.35  # inches


def look_figure(looks: Sequence[Look], path: str | os.PathLike, max_maps: int = 8) -> None:
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

        num_maps = min(max_maps, len(looks[0].maps))
        columns = 3 + num_maps
        figure = Figure(figsize=(CELL * columns + 0.9, CELL * 1.22 * len(looks) + 0.4), layout="constrained")
        axes = figure.subplots(len(looks), columns, squeeze=False)
        top = max(2.0, float(np.nanquantile(np.concatenate([look.maps.numpy().ravel() for look in looks]), 0.998)))
        reach = max(
            1e-12, float(np.nanquantile(np.concatenate([look.evidence.abs().numpy().ravel() for look in looks]), 0.99))
        )
        for row, look in zip(axes, looks, strict=True):
            _draw_row(row, look, top, reach)
        for axis, title in zip(axes[0], ("image", "winner", "evidence"), strict=False):
            axis.set_title(title)
        _colour_bars(figure, axes, top, reach, looks)
        save_figure(figure, path)


def _draw_row(row: Sequence[Any], look: Look, top: float, reach: float) -> None:
    grey = np.asarray(look.image.convert("L")) / 255
    extent = (0, grey.shape[1], grey.shape[0], 0)
    row[0].imshow(look.image, cmap="gray", extent=extent)
    row[0].set_xlabel(_caption(look), color=_colour(look))
    row[1].imshow(_winner(look, grey), extent=extent)
    row[2].imshow(grey, cmap="gray", vmin=-0.4, vmax=1.4, extent=extent)
    row[2].imshow(
        look.evidence.numpy(),
        cmap=EVIDENCE,
        vmin=-reach,
        vmax=reach,
        alpha=_alpha(look.evidence.abs() / reach),
        extent=extent,
    )
    for axis, query in zip(row[3:], look.order, strict=False):
        axis.imshow(grey, cmap="gray", vmin=0, vmax=1.6, extent=extent)
        axis.imshow(
            look.maps[query].numpy(), cmap=MAPS, vmin=0, vmax=top, alpha=_alpha(look.maps[query] / top), extent=extent
        )
        added = f"\n{look.added[query]:+.2f}" if len(look.added) == len(look.maps) else ""
        axis.set_xlabel(f"query {query + 1}{added}")
    for axis in row:
        axis.set(xticks=[], yticks=[])


def _alpha(strength: Tensor) -> np.ndarray:
    return (0.85 * strength.nan_to_num().clamp(0, 1) ** 0.6).numpy()


def _caption(look: Look) -> str:
    lines = [f"{as_label(name)} {100 * value:.0f}%" for name, value in look.answers[:2]]
    return "\n".join([*lines, *([f"is {as_label(look.label)}"] if look.label is not None else [])])


def _colour(look: Look) -> str:
    if look.label is None:
        return "black"
    return "#00786b" if look.label == look.answers[0][0] else "#b3261e"


def _winner(look: Look, grey: np.ndarray) -> np.ndarray:
    """Colours of the groups, as opaque as they are strong, over a darkened image."""
    colours = np.array([GROUPS[group % len(GROUPS)] for group in range(int(look.groups.max()) + 1)])
    dark = (0.55 * grey + 0.10)[..., None]
    strength = look.winner.strength.nan_to_num().numpy()[..., None]
    return np.clip((1 - strength) * dark + strength * colours[look.winner.winner.numpy()], 0, 1)


def _colour_bars(figure: Any, axes: np.ndarray, top: float, reach: float, looks: Sequence[Look]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    name = "added to the logit" if all(look.is_exact for look in looks) else "gradient x input"
    for norm, colours, label in (
        (Normalize(0, top), MAPS, "attention, times uniform"),
        (Normalize(-reach, reach), EVIDENCE, f"{name} (per patch)"),
    ):
        figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=label, fraction=0.015, pad=0.01, shrink=0.9)


def write_looks(looks: Sequence[Look], names: Sequence[str], path: Path) -> None:
    """Write the numbers of a picture, one row per image and query.

    Peak is the largest attention, times uniform; entropy is that of the map over the image, in nats.

    Args:
        looks: Images as a probe sees them.
        names: What each image is called.
        path: `.csv` file.

    Raises:
        OSError: If it cannot be written.
    """
    columns = ("image", "label", "predicted", "score", "query", "rank", "group", "added", "peak", "entropy")
    with whole_file(path, durable=False) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for name, look in zip(names, looks, strict=True):
            (predicted, score), order = look.answers[0], look.order
            for query, attention in enumerate(look.maps):
                seen = attention[attention.isfinite()].clamp(min=0)
                share = seen / seen.sum().clamp(min=1e-12)
                entropy = -(share * (share + 1e-12).log()).sum()
                added = f"{look.added[query]:.6g}" if len(look.added) == len(look.maps) else ""
                texts = [as_cell(text) for text in (name, look.label or "", predicted)]
                numbers = (f"{score:.6g}", query + 1, order.index(query) + 1, int(look.groups[query]) + 1)
                writer.writerow([*texts, *numbers, added, f"{seen.max():.6g}", f"{entropy:.6g}"])
