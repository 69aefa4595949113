"""What a run shows of itself when its numbers are there: pictures over test images, and the report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attentive_probes.analysis.explanations import explain
from attentive_probes.analysis.figures.audit_figure import contact_sheet
from attentive_probes.analysis.figures.explanation_figure import answer_figure, explanation_figure
from attentive_probes.analysis.figures.layer_figure import layer_figure
from attentive_probes.analysis.layer_maps import layer_heatmap
from attentive_probes.auditing.findings import Audit
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.families import head_named
from attentive_probes.evaluation.runs.run_files import (
    ATTENTION_PICTURE,
    COPIES_PICTURE,
    LAYERS_PICTURE,
    PREDICTIONS,
    RIGHT_PICTURE,
    SUSPECTS_PICTURE,
    WRONG_PICTURE,
)
from attentive_probes.experiments.evaluation_block import EvaluationRecipe
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.scores.image_records import read_records

logger = logging.getLogger(__name__)
WRONG, RIGHT = 6, 3  # images
MAX_COPIES, MAX_SUSPECTS = 12, 24  # in a picture


def draw_pictures(
    evaluation: EvaluationRecipe, sweep: ProbeSweep, results: SweepResults, test: ImageSplit, folder: Path
) -> None:
    """Draw what a recipe asks for, and what the selected head got wrong and right, over test images."""
    if (name := named_head(evaluation.attention_head, results)) is not None:
        try:
            _draw(sweep.probe(name), test, range(len(test)), folder / ATTENTION_PICTURE, evaluation.num_images)
        except ValueError as error:  # of a family or the best head, which may read no patches
            logger.warning("The attention of %s is not drawn: %s", name, error)
    if (name := named_head(evaluation.layers_head, results)) is not None:
        layers = layer_heatmap(sweep.probe(name), _readable(test))
        layer_figure(results, layers, folder / LAYERS_PICTURE)
    if sweep.config.problem.has_one_class and (folder / PREDICTIONS).exists():
        places = {row: place for place, row in enumerate(test.rows.tolist())}
        wrong, right = telling_predictions(folder / PREDICTIONS)
        for predictions, name in ((wrong, WRONG_PICTURE), (right, RIGHT_PICTURE)):
            found = {places[answer["row"]]: answer for answer in predictions if answer["row"] in places}
            _draw_predictions(sweep.probe(results.best.name), test, found, folder / name)


def named_head(name: str | None, results: SweepResults) -> str | None:
    """The head that a recipe means: one of that name, the best of a family, or the selected one (`best`)."""
    return None if name is None else head_named(name, results.heads, results.selection_metric)


def telling_predictions(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The most confident mistakes, the worst first, and correct predictions from all over their confidence.

    Args:
        path: What the run kept of the predictions of its selected head; each is a row of that table.

    Raises:
        ValueError: If the file is damaged.
    """
    table = read_records(path)
    is_right = np.array(table["label"].to_pylist()) == np.array(table["predicted"].to_pylist())
    order = np.argsort(-table["probability"].to_numpy(), kind="stable")
    wrong, right = order[~is_right[order]][:WRONG], order[is_right[order]]
    spread = right[np.unique(np.linspace(0, len(right) - 1, RIGHT).round().astype(int))] if len(right) else right
    return table.take(wrong).to_pylist(), table.take(spread).to_pylist()


def _draw_predictions(
    probe: ProbeForImageClassification, split: ImageSplit, predictions: Mapping[int, Mapping[str, Any]], path: Path
) -> None:
    """Draw what a probe answered about some images, and, if it reads patches, what it saw there."""
    try:
        if any(item.kind == "patches" for item in probe.head.reading.items):
            _draw(probe, split, list(predictions), path)
            return
    except ValueError as error:  # the numbers of a run do not depend on its pictures
        logger.warning("Maps cannot be drawn over images: %s", error)
    if predictions:
        images = [split[place].image for place in predictions]
        pairs = [(one, answer) for one, answer in zip(images, predictions.values(), strict=True) if one is not None]
        said = [(answer["predicted"], answer["probability"]) for _, answer in pairs]
        answer_figure([one for one, _ in pairs], said, [answer["label"] for _, answer in pairs], path)


def _draw(
    probe: ProbeForImageClassification, split: ImageSplit, places: Sequence[int], path: Path, count: int | None = None
) -> None:
    """Draw the first readable images among some, with their labels where there are classes."""
    examples = (split[place] for place in places)
    pairs = list(islice(((one.image, one.label) for one in examples if one.image is not None), count))
    if pairs:
        is_class = probe.config.problem.has_one_class
        labels = [probe.config.id2label[int(label)] if is_class else None for _, label in pairs]
        explanation_figure(explain(probe, [image for image, _ in pairs], labels), path)


def _readable(split: ImageSplit) -> Iterator[Image.Image]:
    images = (split[row].image for row in range(len(split)))
    return (image for image in images if image is not None)


def draw_audit(audit: Audit, splits: Mapping[str, ImageSplit], folder: Path) -> None:
    """Draw the surest copies and label suspects of an audit, if there are any.

    Args:
        audit: What was found.
        splits: Name -> images, as they were audited.
        folder: Where the pictures go.
    """
    copies, suspects = [], []
    for finding in [*audit.of_kind("leak"), *audit.of_kind("duplicate")][:MAX_COPIES]:
        pair = [(finding.split, finding.place), (finding.other_split, finding.other_place)]
        images = [image for split, place in pair if (image := splits[split][place].image) is not None]
        where = finding.split if finding.kind == "duplicate" else f"{finding.split} | {finding.other_split}"
        labels = finding.label if not finding.likely else f"{finding.label} | {finding.likely}"
        copies.append((images, f"{where}\n{labels}"))
    for finding in audit.of_kind("label")[:MAX_SUSPECTS]:
        image = splits[finding.split][finding.place].image
        if image is not None:
            suspects.append(([image], f"is called {finding.label}\nlikely {finding.likely}"))
    for entries, name in ((copies, COPIES_PICTURE), (suspects, SUSPECTS_PICTURE)):
        (folder / name).unlink(missing_ok=True)
        if entries:
            contact_sheet(entries, folder / name)
