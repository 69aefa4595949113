"""How the queries of probes complement each other, as a picture and as numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import HEADS, LAYERS, as_label, colours_of
from attentive_probes.analysis.measures.query_statistics import QueryStudy
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.files.writing import csv_file

BLUE, ORANGE = HEADS[:2]
OF_PROBE = ("overlap_cosine", "overlap_intersection", "effective_queries", "coverage", "dead")
OF_QUERY = ("entropy", "uniformity", "agreement")


def query_figure(studies: Mapping[str, QueryStudy], path: str | os.PathLike) -> None:
    """Draw overlap, effective number of queries and accuracy against the number of queries.

    For a single probe: the overlap of every two queries, and how fixed the place of each is. Where queries were left
    out one by one, what that cost stands beside, the most needed first.

    Args:
        studies: Name of each probe -> what its queries do.
        path: Picture file to write, `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: If there is no probe.
    """
    if not studies:
        raise ValueError("There is no probe to draw.")
    has_drops = any(study.dropped for study in studies.values())
    ordered = dict(sorted(studies.items(), key=lambda item: item[1].num_queries))
    columns = (3 if len(studies) > 1 else 2) + has_drops
    with drawing(path, (2.4 * columns, 2.4)) as figure:
        axes = list(figure.subplots(1, columns))
        if len(studies) > 1:
            _draw_overlap(axes[0], ordered)
            _draw_effective(axes[1], ordered)
            _draw_accuracy(axes[2], ordered)
        else:
            _draw_matrix(figure, axes[0], next(iter(ordered.values())))
            _draw_places(axes[1], next(iter(ordered.values())))
        if has_drops:
            _draw_drops(axes[-1], ordered)


def _draw_overlap(axis: Any, studies: Mapping[str, QueryStudy]) -> None:
    several = [study for study in studies.values() if study.num_queries > 1]
    counts = [study.num_queries for study in several]
    for column, label, colour in (("overlap", "cosine", BLUE), ("shared", "intersection", ORANGE)):
        values = [getattr(study.complementarity, column) for study in several]
        axis.plot(counts, values, marker="o", markersize=3, color=colour, label=label)
    axis.set(ylabel="overlap of two queries", ylim=(0, 1))
    axis.legend()
    _count_queries(axis, studies)


def _draw_effective(axis: Any, studies: Mapping[str, QueryStudy]) -> None:
    counts = [study.num_queries for study in studies.values()]
    values = [study.complementarity.effective_queries for study in studies.values()]
    axis.plot(counts, counts, color="0.6", linestyle=":", label="no overlap")
    axis.plot(counts, values, marker="o", markersize=3, color=BLUE)
    axis.set(ylabel="effective number of queries")
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend()
    _count_queries(axis, studies)


def _draw_accuracy(axis: Any, studies: Mapping[str, QueryStudy]) -> None:
    metric = next(iter(studies.values())).metric
    scored = [(study.num_queries, study.score) for study in studies.values() if study.score is not None]
    counts, values = [count for count, _ in scored], [score.value for _, score in scored]
    errors = list(zip(*(score.errors for _, score in scored), strict=True))
    axis.errorbar(counts, values, errors, marker="o", markersize=3, capsize=2, color=BLUE)
    axis.set(ylabel=f"{metric} (%)" if metric != "mean_absolute_error" else metric)
    _count_queries(axis, studies)


def _count_queries(axis: Any, studies: Mapping[str, QueryStudy]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted({study.num_queries for study in studies.values()}))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("queries")
    axis.grid(alpha=0.3)


def _draw_matrix(figure: Any, axis: Any, study: QueryStudy) -> None:
    end = study.num_queries + 0.5  # queries count from 1
    cosine = study.complementarity.cosine.numpy()
    picture = axis.imshow(cosine, cmap=LAYERS, vmin=0, vmax=1, extent=(0.5, end, end, 0.5))
    axis.set(xlabel="query", ylabel="query")
    figure.colorbar(picture, ax=axis, label="overlap (cosine)", shrink=0.8)


def _draw_places(axis: Any, study: QueryStudy) -> None:
    found = study.complementarity
    axis.scatter(found.uniformity.tolist(), found.agreement.tolist(), s=12, color=BLUE)
    for query, place in enumerate(zip(found.uniformity.tolist(), found.agreement.tolist(), strict=True)):
        axis.annotate(str(query + 1), place, (2, 2), textcoords="offset points", fontsize=6)
    axis.set(xlabel="distance to uniform", ylabel="same place in all images", xlim=(0, 1), ylim=(0, 1.05))
    axis.grid(alpha=0.3)


def _draw_drops(axis: Any, studies: Mapping[str, QueryStudy]) -> None:
    for (name, study), colour in zip(studies.items(), colours_of(studies).values(), strict=True):
        differences = sorted(test[f"{study.metric}_difference"] for test in study.dropped)
        ranks, values = range(1, len(differences) + 1), [value for value, _, _ in differences]
        errors = [[v - low for v, low, _ in differences], [high - v for v, _, high in differences]]
        axis.errorbar(
            ranks, values, errors, marker="o", markersize=2, lw=0.8, elinewidth=0.5, color=colour, label=as_label(name)
        )
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set(xlabel="query, most needed first", ylabel=f"{study.metric} without it, difference")
    axis.grid(alpha=0.3)
    axis.legend()


def write_queries(studies: Mapping[str, QueryStudy], path: Path) -> None:
    """Write the numbers, a row per probe and query; those of the probe stand in every row of it.

    Args:
        studies: Name of each probe -> what its queries do.
        path: `.csv` file.
    """
    columns = ("probe", "queries", "images", *OF_PROBE, "metric", "value", "low", "high", "query", *OF_QUERY)
    lost = ("difference", "difference_low", "difference_high", "p_holm")
    with csv_file(path, [*columns, *lost], durable=False) as writer:
        for name, study in studies.items():
            found, test = study.complementarity, study.test
            numbers = (found.overlap, found.shared, found.effective_queries, found.coverage, len(found.dead))
            score = [test[study.metric], *((study.score and study.score.interval) or ("", ""))]
            for query in range(study.num_queries):
                of_query = [float(getattr(found, column)[query]) for column in OF_QUERY]
                of_drop = _drop_cells(study, query)
                cells = [*numbers, study.metric, *score, query + 1, *of_query, *of_drop]
                texts = [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells]
                writer.writerow([as_cell(name), study.num_queries, found.num_images, *texts])


def _drop_cells(study: QueryStudy, query: int) -> list[Any]:
    if not study.dropped:
        return ["", "", "", ""]
    test = study.dropped[query]
    return [*test[f"{study.metric}_difference"], test[f"{study.metric}_p_holm"]]
