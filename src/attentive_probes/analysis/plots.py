"""Pictures, with matplotlib (extra `plots`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attentive_probes.analysis.layer_maps import LayerMap
from attentive_probes.evaluation.results import HeadResult, SweepResults
from attentive_probes.writing import whole_file


def require_matplotlib() -> None:
    """Check that matplotlib can be imported.

    Raises:
        ImportError: If not; the text names the extra to install.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'attentive-probes[plots]'.") from error


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
    from matplotlib.figure import Figure

    if not history:
        raise ValueError("There is nothing to draw: the history is empty.")
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for key in history[0]:
        name, _, found = key.rpartition("/")
        if found == metric:
            axis.plot([row["step"] for row in history], [row[key] for row in history], marker=".", label=name)
    axis.set(xlabel="training step of the backbone", ylabel=f"validation {metric}")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path, 130)


def layer_figure(results: SweepResults, layer_map: LayerMap, path: str | os.PathLike) -> None:
    """Draw what each layer knows beside where a fusing head looks.

    Left: test accuracy over depth, one line per pooling, for heads that read one block or stage, with 95% intervals;
    heads over several taps, or over the last state, are level lines. Right: mean attention per tap and kind of token.

    Args:
        results: A run whose test split was scored.
        layer_map: Of a head over several layers.
        path: Picture file to write.

    Raises:
        ImportError: If matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curves, heat = figure.subplots(1, 2, width_ratios=(1.4, 1))
    lines, levels = _split_by_depth(results)
    for pooling, points in lines.items():
        depths = [depth for depth, _ in points]
        tests = [head.test or {} for _, head in points]
        values = np.array([test["top1"] for test in tests])
        low, high = np.array([test["top1_interval"] for test in tests]).T
        curves.errorbar(depths, values, (values - low, high - values), marker="o", capsize=3, label=pooling)
    for number, head in enumerate(levels):
        curves.axhline((head.test or {})["top1"], color=f"C{number + len(lines)}", ls="--", lw=1, label=head.name)
    curves.set(xlabel="block or stage", ylabel="test top-1 accuracy (%)")
    curves.legend(fontsize=8)
    attention = layer_map.attention.T.numpy()
    picture = heat.imshow(attention, cmap="viridis", vmin=0, aspect="auto")
    heat.set_xticks(range(len(layer_map.taps)), layer_map.taps, rotation=45, ha="right", fontsize=8)
    heat.set_yticks(range(len(layer_map.kinds)), layer_map.kinds)
    figure.colorbar(picture, ax=heat, label="mean attention over heads and images")
    save_figure(figure, path, 130)


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


def save_figure(figure: Any, path: str | os.PathLike, dpi: int = 150) -> None:
    """Write a figure in one step, in the format that the name of the file ends with.

    Raises:
        OSError: If it cannot be written.
    """
    with whole_file(path, durable=False) as partial:
        figure.savefig(partial, dpi=dpi, format=Path(path).suffix.removeprefix(".") or "png")
