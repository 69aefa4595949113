"""Pictures of what each layer knows, and of where heads over several layers look."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import COLUMN, LAYERS, as_label, colours_of
from attentive_probes.analysis.layer_maps import LayerMap, LayerRow
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.files.writing import csv_file

SHORT = {"mean": "ap"}  # an average patch, as the figures of ALF call it


def layer_map_figure(rows: Sequence[LayerRow], path: str | os.PathLike) -> None:
    """Draw layer maps as ALF (arXiv 2601.09322) does: a panel per backbone, a row per data set or class.

    Columns are the taps in depth order, those of one kind of token after those of another, with a dashed line between;
    all share one scale, which begins at 0. Where rows are classes, every probe has a panel of its own.

    Args:
        rows: What is drawn.
        path: Picture file to write, `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: If there is no row.
    """
    if not rows:
        raise ValueError("There is no layer map to draw.")
    panels: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[LayerRow]] = {}
    has_classes = any(row.label is not None for row in rows)
    for row in rows:
        title = f"{row.model}: {row.probe}" if has_classes else row.model
        panels.setdefault((title, row.map.taps, row.map.kinds), []).append(row)
    top = max(float(row.map.attention.max()) for row in rows)
    heights = [len(members) for members in panels.values()]
    columns = max(len(taps) * len(kinds) for _, taps, kinds in panels)
    size = (max(COLUMN, 2.2 + 0.2 * columns), 0.9 * len(panels) + 0.2 * sum(heights) + 0.3)
    with drawing(path, size) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, ((title, taps, kinds), members) in zip(axes, panels.items(), strict=True):
            values = np.stack([row.map.attention.T.numpy().ravel() for row in members])
            picture = axis.imshow(values, cmap=LAYERS, vmin=0, vmax=top, aspect="auto")
            axis.set_yticks(range(len(members)), _names_of(members))
            axis.set_title(as_label(title, 60))
            _name_columns(axis, taps, kinds)
        figure.colorbar(picture, ax=axes, label="mean attention over heads", fraction=0.05, pad=0.02)


def write_layer_maps(rows: Sequence[LayerRow], path: Path, *, by_class: bool = False) -> None:
    """Write layer maps in the layout of ALF's figures: a row per map and kind of token, `p01` the first tap.

    Args:
        rows: What is written.
        path: `.csv` file.
        by_class: Whether rows have a class and its number of images as well.
    """
    depth = max((len(row.map.taps) for row in rows), default=0)
    extra = ("class", "images") if by_class else ()
    with csv_file(
        path, ["model", "dataset", *extra, "token", "heads", *(f"p{i:02d}" for i in range(1, depth + 1))], durable=False
    ) as writer:
        for row in rows:
            named = [as_cell(row.model), as_cell(row.dataset)]
            named += [as_cell(row.label or ""), str(row.num_images)] if by_class else []
            by_token = {SHORT.get(kind, kind): row.map.attention[:, i] for i, kind in enumerate(row.map.kinds)}
            for token in sorted(by_token):
                writer.writerow([*named, token, row.num_heads, *(f"{value:.4f}" for value in by_token[token].tolist())])


def layer_figure(results: SweepResults, layer_map: LayerMap, path: str | os.PathLike) -> None:
    """Draw what each layer knows beside where a fusing head looks.

    Left: the test score over depth, one line per pooling, for heads that read one block or stage, with 95% intervals;
    heads over several taps, or over the last state, are level lines. Right: mean attention per tap and kind of token.

    Args:
        results: A run whose test split was scored.
        layer_map: Of a head over several layers.
        path: Picture file to write.
    """
    with drawing(path, (7.2, 2.9)) as figure:
        curves, heat = figure.subplots(1, 2, width_ratios=(1.4, 1))
        lines, levels = _split_by_depth(results)
        colours = colours_of([*lines, *(head.name for head in levels)])
        _draw_depths(curves, lines, levels, colours, results.test_metric)
        picture = heat.imshow(layer_map.attention.T.numpy(), cmap=LAYERS, vmin=0, aspect="auto")
        heat.set_xticks(range(len(layer_map.taps)), layer_map.taps, rotation=45, ha="right")
        heat.set_yticks(range(len(layer_map.kinds)), layer_map.kinds)
        figure.colorbar(picture, ax=heat, label="mean attention over heads and images")


def _draw_depths(
    axis: Any,
    lines: Mapping[str, list[tuple[int, HeadResult]]],
    levels: Sequence[HeadResult],
    colours: Mapping[str, str],
    metric: str | None,
) -> None:
    for pooling, points in lines.items():
        scored = [(depth, score) for depth, head in points if (score := head.score("test", metric)) is not None]
        depths, values = [depth for depth, _ in scored], [score.value for _, score in scored]
        errors = list(zip(*(score.errors for _, score in scored), strict=True)) or None
        axis.errorbar(
            depths, values, errors, marker="o", markersize=3, capsize=2, color=colours[pooling], label=pooling
        )
    for head in levels:
        if (score := head.score("test", metric)) is not None:
            axis.axhline(score.value, color=colours[head.name], ls="--", lw=1, label=as_label(head.name))
    axis.set(xlabel="block or stage", ylabel="test top-1 accuracy (%)" if metric == "top1" else f"test {metric}")
    axis.grid(alpha=0.3)
    axis.legend()


def _names_of(members: Sequence[LayerRow]) -> list[str]:
    """What rows of a panel are called: by the probe as well, where data sets do not tell them apart."""
    names = [row.dataset if row.label is None else row.label for row in members]
    is_clear = len(set(names)) == len(names)
    return [as_label(name if is_clear else f"{name}, {row.probe}") for name, row in zip(names, members, strict=True)]


def _name_columns(axis: Any, taps: Sequence[str], kinds: Sequence[str]) -> None:
    axis.set_xticks(range(len(taps) * len(kinds)), list(taps) * len(kinds), rotation=90)
    for place, kind in enumerate(kinds):
        if place:
            axis.axvline(place * len(taps) - 0.5, color="white", linestyle="--", linewidth=1)
        middle = (place + 0.5) / len(kinds)
        axis.annotate(
            kind, (middle, 0), (0, -44), xycoords="axes fraction", textcoords="offset points", ha="center", va="top"
        )


def _split_by_depth(results: SweepResults) -> tuple[dict[str, list[tuple[int, HeadResult]]], list[HeadResult]]:
    lines: dict[str, list[tuple[int, HeadResult]]] = {}
    levels = []
    for head in results.heads:
        taps = {item.partition("@")[2] for item in head.head["tokens"]}
        name, _, number = next(iter(taps)).partition(":")
        if len(taps) == 1 and name in ("block", "stage"):
            lines.setdefault(head.head["pooling"], []).append((int(number), head))
        else:
            levels.append(head)
    return {pooling: sorted(points, key=lambda point: point[0]) for pooling, points in lines.items()}, levels
