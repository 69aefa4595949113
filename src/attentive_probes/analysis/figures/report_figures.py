"""Pictures of a run for its report, as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import COLUMN, LAYERS, as_label, colours_of
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.families import cost
from attentive_probes.problems import SMALLER_IS_BETTER

COLOURED = 8  # heads; more cannot be told apart
PAGE = 7.4  # inches
NAMED = 30  # classes whose names fit beside a matrix


def shown_colours(results: SweepResults) -> dict[str, str]:
    """Name -> colour of each head, the same in all figures of a run: the best ones have their own, others are grey."""
    metric = results.selection_metric
    best = sorted(results.heads, key=lambda head: cost(head.validation.get(metric), metric))[:COLOURED]
    coloured = colours_of([head.name for head in best])
    return {head.name: coloured.get(head.name, "0.75") for head in results.heads}


def scored_by(results: SweepResults) -> tuple[str, str]:
    """What stands for a run: the split, `test` if it was scored, and the metric there."""
    metric = results.test_metric
    return ("validation", results.selection_metric) if metric is None else ("test", metric)


def curves_figure(results: SweepResults) -> str:
    """Training loss and the selection metric on validation, epoch by epoch; nothing where there is no history."""
    heads = [head for head in results.heads if head.history]
    if not heads:
        return ""
    colours, metric = shown_colours(results), results.selection_metric
    picture = io.StringIO()
    with drawing(picture, (PAGE, 2.6)) as figure:
        axes = figure.subplots(1, 2)
        for head in sorted(heads, key=lambda head: colours[head.name] != "0.75"):
            style = {"marker": ".", "linewidth": 1, "color": colours[head.name]}
            epochs = [row["epoch"] for row in head.history]
            label = as_label(head.name) if colours[head.name] != "0.75" else None
            for axis, key in zip(axes, ("train_loss", metric), strict=True):
                values = [row.get(key) for row in head.history]
                axis.plot(epochs, [math.nan if v is None else v for v in values], label=label, **style)
            best = [row for row in head.history if row["epoch"] == head.best_epoch]
            if best and best[0].get(metric) is not None:
                axes[1].plot(head.best_epoch, best[0][metric], marker="o", markersize=5, color=style["color"])
        axes[0].set(xlabel="epoch", ylabel="training loss")
        axes[1].set(xlabel="epoch", ylabel=f"validation {metric}")
        for axis in axes:
            axis.grid(alpha=0.3)
            axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return picture.getvalue()


def trade_figure(results: SweepResults) -> str:
    """Score against trained parameters and against seconds, with the heads that no other one beats in both."""
    split, metric = scored_by(results)
    points = [(head, score) for head in results.heads if (score := head.score(split, metric)) is not None]
    if not points:
        return ""
    colours = shown_colours(results)
    picture = io.StringIO()
    with drawing(picture, (PAGE, 2.6)) as figure:
        from matplotlib.ticker import LogLocator, NullLocator

        axes = figure.subplots(1, 2, sharey=True)
        for axis, column, label in zip(
            axes,
            ("trainable_parameters", "seconds"),
            ("trained parameters", "seconds until its best epoch, heads together"),
            strict=True,
        ):
            for head, score in points:
                place, colour = getattr(head, column), colours[head.name]
                name = as_label(head.name) if colour != "0.75" else None
                errors = [[error] for error in score.errors]
                axis.errorbar(place, score.value, errors, marker="o", markersize=4, capsize=2, color=colour, label=name)
            front = pareto(
                [(getattr(head, column), score.value) for head, score in points], metric in SMALLER_IS_BETTER
            )
            axis.plot(*zip(*front, strict=True), color="0.5", linewidth=0.8, linestyle="--", zorder=0)
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        axes[0].set_xscale("log")
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].xaxis.set_major_formatter("{x:,.0f}")
        axes[0].xaxis.set_minor_locator(NullLocator())
        axes[0].set_ylabel(f"{split} {metric}")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return picture.getvalue()


def pareto(points: Sequence[tuple[float, float]], smaller_is_better: bool = False) -> list[tuple[float, float]]:
    """The points (price, value) that no other one beats in both, by price."""
    front: list[tuple[float, float]] = []
    sign = -1 if smaller_is_better else 1
    for price, value in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((price, value))
    return front


def confusion_figure(confusion: Sequence[Sequence[int]], names: Mapping[int, str]) -> str:
    """Share of the images of each class (row) that each class (column) was answered for."""
    counts = np.asarray(confusion, float)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    size = min(1.5 * COLUMN, max(COLUMN, 1.6 + 0.18 * len(counts)))
    picture = io.StringIO()
    with drawing(picture, (size, 0.9 * size)) as figure:
        axis = figure.subplots()
        shown = axis.imshow(shares, cmap=LAYERS, vmin=0, vmax=1)
        axis.set(xlabel="answer", ylabel="class")
        if len(counts) <= NAMED:
            labels = [as_label(names[i], 14) for i in range(len(counts))]
            axis.set_xticks(range(len(labels)), labels, rotation=90)
            axis.set_yticks(range(len(labels)), labels)
        figure.colorbar(shown, ax=axis, label="share of the images of a class", shrink=0.8)
    return picture.getvalue()


def reliability_figure(bins: Sequence[Sequence[float]]) -> str:
    """Accuracy against confidence in bins (arXiv 1706.04599): images, accuracy and mean confidence of each."""
    images, right, sure = np.asarray(bins, float).T
    picture = io.StringIO()
    with drawing(picture, (COLUMN, 0.9 * COLUMN)) as figure:
        axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        axis.plot((0, 100), (0, 100), color="0.6", linestyle=":", linewidth=1)
        axis.plot(sure, right, marker="o", markersize=4, color=next(iter(colours_of(["one"]).values())))
        axis.set(ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
        below.bar(sure, images, width=4, color="0.6")
        below.set(xlabel="mean confidence (%)", ylabel="images")
        for one in (axis, below):
            one.grid(alpha=0.3)
    return picture.getvalue()
