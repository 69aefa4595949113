"""What a probe over several layers made of one image: how much it looked at each layer, and what that added."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attentive_probes.analysis.explanations import explained
from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import EVIDENCE, LAYERS
from attentive_probes.analysis.layer_maps import by_layer
from attentive_probes.files.writing import csv_file
from attentive_probes.probe.making.describe import layouts_of
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.probabilities import best_scores


class LayerExplanation(NamedTuple):
    """One image as a probe over several layers sees it; rows of tables are taps in reading order, columns kinds.

    Args:
        predictions: Names of the best classes with their probabilities, best first.
        taps: The taps L.
        kinds: The kinds of token K.
        attention: `(L, K)`, mean over attention heads; all entries sum to 1.
        evidence: `(L, K)`, what the tokens there added to the logit of the chosen class.
        constant: What comes from biases and statistics; with all evidence it is the logit, where that is exact.
        is_exact: Whether it is; else the evidence is the gradient times the input.
    """

    predictions: list[tuple[str, float]]
    taps: tuple[str, ...]
    kinds: tuple[str, ...]
    attention: Tensor
    evidence: Tensor
    constant: float
    is_exact: bool


def explain_layers(
    probe: ProbeForImageClassification, sequence: Tensor, chosen: int | None = None, top_k: int = 3
) -> LayerExplanation:
    """See one image as a probe sees it, layer by layer.

    Args:
        probe: The probe, in evaluation mode.
        sequence: `(1, T, D)`, as `read_images` gives it.
        chosen: Id of the class whose evidence is shown; by default the one that is predicted.
        top_k: Number of predictions.
    """
    classes = None if chosen is None else torch.tensor([chosen])
    with torch.no_grad():
        found, is_exact = explained(probe.head, sequence, classes)
        predictions = best_scores(probe.head(sequence).logits[0], probe.config, top_k)
    reading = probe.head.reading
    layouts = layouts_of(probe.config, reading)
    kinds, attention = by_layer(reading, found.attention[0].mean(0).cpu(), layouts)
    _, evidence = by_layer(reading, found.values[0].sum(0).cpu(), layouts)
    return LayerExplanation(predictions, reading.taps, kinds, attention, evidence, float(found.constant[0]), is_exact)


def layer_explanation_figure(explanation: LayerExplanation, path: str | os.PathLike) -> None:
    """Draw how much a probe looked at each layer, and what that added (red) or took away (blue).

    Args:
        explanation: One image as a probe sees it.
        path: Picture file to write, `.png`, `.svg` or `.pdf`.
    """
    height = 2.0 + 0.5 * len(explanation.kinds)
    with drawing(path, (max(3.4, 1.6 + 0.3 * len(explanation.taps)), height)) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        reach = max(1e-12, float(explanation.evidence.abs().max()))
        name = "added to the logit" if explanation.is_exact else "gradient x input"
        _draw(figure, above, explanation.attention, explanation, {"cmap": LAYERS, "vmin": 0}, "attention")
        _draw(figure, below, explanation.evidence, explanation, {"cmap": EVIDENCE, "vmin": -reach, "vmax": reach}, name)
        above.set_title("by layer and kind of token", loc="left")
        below.set_xticks(range(len(explanation.taps)), explanation.taps, rotation=90)


def _draw(
    figure: Any, axis: Any, table: Tensor, explanation: LayerExplanation, colours: dict[str, Any], label: str
) -> None:
    picture = axis.imshow(table.T.numpy(), aspect="auto", **colours)
    axis.set_yticks(range(len(explanation.kinds)), explanation.kinds)
    figure.colorbar(picture, ax=axis, label=label)


def write_layer_explanation(explanation: LayerExplanation, path: Path) -> None:
    """Write the numbers, a row per tap and kind.

    Args:
        explanation: One image as a probe sees it.
        path: `.csv` file.
    """
    with csv_file(path, ["tap", "kind", "attention", "added"], durable=False) as writer:
        for row, tap in enumerate(explanation.taps):
            for column, kind in enumerate(explanation.kinds):
                numbers = (table[row, column] for table in (explanation.attention, explanation.evidence))
                writer.writerow([tap, kind, *(f"{value:.6g}" for value in numbers)])
        writer.writerow(["constant", "", "", f"{explanation.constant:.6g}"])
