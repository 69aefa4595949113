"""What the page shows of an image: each probe's answer, its evidence for a class, its maps, its layers."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attentive_probes.analysis.explanations import explain_read
from attentive_probes.analysis.figures.explanation_figure import explanation_figure, write_explanations
from attentive_probes.analysis.figures.layer_explanations import (
    explain_layers,
    layer_explanation_figure,
    write_layer_explanation,
)
from attentive_probes.analysis.figures.overlays import evidence_overlay, map_overlay, shared_scales
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.probabilities import best_scores
from attentive_probes.serving.heads import REMEDY, SharedPass
from attentive_probes.tokens import kinds_by_tap

TOP = 5  # classes with bars
SMALLEST = 256  # pixels of the longer side of an overlay


@dataclass
class Reading:
    """What one probe read of an image: the opened image, and the sequence `(1, T, D)`."""

    image: Image.Image
    sequence: Tensor


def read_file(path: str, passes: Sequence[SharedPass]) -> dict[str, Reading]:
    """Name of each probe -> what it read of an image file; one backbone pass for all probes on one backbone.

    Raises:
        ValueError: If the file is no image that can be read.
    """
    found: dict[str, Reading] = {}
    cell = {
        "path": None,
        "bytes": Path(path).read_bytes(),
    }  # Drop the path: the file layout of the server must not leak.
    for shared in passes:
        image = open_image(cell, "that was given", num_channels=shared.backbone.num_channels, remedy=REMEDY)
        assert shared.processor is not None
        pixels = shared.processor([image], return_tensors="pt")["pixel_values"].to(shared.backbone.device)
        heads = {name: probe.head for name, probe in shared.probes.items()}
        with torch.no_grad():
            tokens = shared.backbone(pixels, kinds_by_tap([head.reading for head in heads.values()]))
            found |= {name: Reading(image, head.read(tokens)) for name, head in heads.items()}
    return found


def reads_patches(probe: ProbeForImageClassification) -> bool:
    """Whether the attention of a probe has a place in the image."""
    return any(item.kind == "patches" for item in probe.head.reading.items)


def answer(probe: ProbeForImageClassification, reading: Reading) -> dict[str, float] | str:
    """The best classes with their probabilities; the numbers themselves of a regression."""
    with torch.no_grad():
        logits = probe.head(reading.sequence).logits[0]
    best = best_scores(logits, probe.config, TOP)
    if not probe.config.problem.has_classes:
        return ", ".join(f"{name}: {value:.4g}" for name, value in best)
    return dict(best)


def evidence_and_map(
    probe: ProbeForImageClassification, reading: Reading, label: str | None, query: int
) -> tuple[Image.Image, Image.Image, str]:
    """Evidence for a class and the map of a query over the image, and what they come to in words.

    Args:
        probe: A probe that reads patches.
        reading: What it read.
        label: Name of the class; by default the one that is predicted.
        query: Number of the query, from 1 for the one that added most.
    """
    (explanation,) = explain_read(probe, [reading.image], reading.sequence, classes=_ids(probe, label))
    top, reach = shared_scales([explanation])
    chosen = explanation.order[min(query, len(explanation.order)) - 1]
    name = "added to the logit" if explanation.is_exact else "gradient x input"
    words = [f"strongest place {explanation.evidence.abs().nan_to_num().max():.3g} ({name})"]
    words.append(f"query {chosen + 1} looks up to {explanation.maps[chosen].nan_to_num().max():.1f} times uniform")
    if len(explanation.added) == len(explanation.maps):
        words.append(f"and {name} {explanation.added[chosen]:+.2f}")
    pixels = (evidence_overlay(explanation, reach), map_overlay(explanation, chosen, top))
    evidence, overlay = (_enlarged(Image.fromarray((255 * one).round().astype(np.uint8))) for one in pixels)
    return evidence, overlay, ", ".join(words)


def layers(probe: ProbeForImageClassification, reading: Reading, label: str | None) -> Image.Image:
    """How much a probe over several layers looked at each of them, and what that added to a class."""
    explanation = explain_layers(probe, reading.sequence, None if label is None else probe.config.label2id[label])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layers.png"
        layer_explanation_figure(explanation, path)
        return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def picture_and_numbers(
    name: str, probe: ProbeForImageClassification, reading: Reading, label: str | None, folder: Path
) -> tuple[Path, Path]:
    """Write what is shown as a picture and as numbers.

    Args:
        name: Name of the probe.
        probe: The probe.
        reading: What it read.
        label: Name of the class whose evidence is shown.
        folder: Folder to write to.
    """
    picture, numbers = folder / f"{name}.png", folder / f"{name}.csv"
    if reads_patches(probe):
        explanations = explain_read(probe, [reading.image], reading.sequence, classes=_ids(probe, label))
        explanation_figure(explanations, picture)
        write_explanations(explanations, ["image"], numbers)
    else:
        explanation = explain_layers(probe, reading.sequence, None if label is None else probe.config.label2id[label])
        layer_explanation_figure(explanation, picture)
        write_layer_explanation(explanation, numbers)
    return picture, numbers


def example_files(dataset: Any, column: str, count: int, folder: Path) -> list[Path]:
    """Images from all over a data set, as files."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)).tolist()
    paths = []
    for row in rows:
        path = folder / f"example-{row}.png"
        open_image(dataset[row][column], f"in row {row}").save(path)
        paths.append(path)
    return paths


def _ids(probe: ProbeForImageClassification, label: str | None) -> Tensor | None:
    return None if label is None else torch.tensor([probe.config.label2id[label]])


def _enlarged(picture: Image.Image) -> Image.Image:
    """A small picture at a size that can be seen, without smoothing what is there."""
    scale = -(-SMALLEST // max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def shared_passes(served: Mapping[str, SharedPass]) -> list[SharedPass]:
    """The distinct passes of probes, in order."""
    return list(dict.fromkeys(served.values()))
