"""Classify image files with a probe."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from attentive_probes.data.decode import open_image
from attentive_probes.data.listing import Folder
from attentive_probes.probe.label_table import LabelTable
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.writing import whole_file, write_whole


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image file.

    Args:
        path: The file.
        labels: Names of the best classes, best first.
        scores: Their probabilities (targets of a regression as they are).
    """

    path: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]


def find_images(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """All image files among files and folders (with their subfolders), each once, in order of name within a folder.

    Hidden files and leftovers of file managers in folders do not count, as in training.

    Raises:
        ValueError: If a path does not exist, or there is no image at all.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"There is no file or folder {str(path)!r}.")
        found.update(dict.fromkeys(map(Path, Folder.of(path).images()) if path.is_dir() else [path]))
    files = list(found)
    if not files:
        raise ValueError("There is no image file in the given paths.")
    return files


def predict_files(
    probe: ProbeForImageClassification,
    files: Sequence[Path],
    *,
    top_k: int = 5,
    batch_size: int = 64,
    unreadable: str = "raise",
    labels: Sequence[Any] = (),
) -> Iterator[Prediction]:
    """Classify image files, batch by batch.

    Args:
        probe: The probe, with its image processor.
        files: Image files.
        top_k: Number of classes to name; all, if there are fewer.
        batch_size: Images per forward pass.
        unreadable: `raise`, or `skip` to leave out files that are no readable image, or get no finite scores.
        labels: Classes to score, by name or label, in place of the best ones.

    Raises:
        ValueError: If the probe has no image processor, does not know a label, or an image cannot be read under the
            policy `raise`.
    """
    if probe.image_processor is None:
        raise ValueError("The probe has no image processor; set probe.image_processor.")
    table = LabelTable.from_config(probe.config)
    ids = [table.id_of(label) for label in labels]
    if None in ids:
        raise ValueError(table.unknown(labels[ids.index(None)]))
    probe.eval()
    with tqdm(total=len(files), unit="img", leave=False) as bar:
        for start in range(0, len(files), batch_size):
            chunk = files[start : start + batch_size]
            opened = [(path, image) for path in chunk if (image := _open(path, unreadable, probe)) is not None]
            if opened:
                yield from _predict(probe, opened, top_k, [i for i in ids if i is not None], unreadable)
            bar.update(len(chunk))


def write_predictions(predictions: Iterable[Prediction], path: Path) -> int:
    """Write predictions as `.csv` or `.json` and return their number.

    Raises:
        ValueError: If the file name has another ending; before any prediction is made.
    """
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"Predictions are written as .csv or .json, not as {path.name!r}.")
    rows = list(predictions)
    if path.suffix == ".json":
        content = [{"path": r.path, "labels": r.labels, "scores": r.scores} for r in rows]
        write_whole(path, json.dumps(content, indent=2) + "\n", durable=False)
    else:
        ranks = range(1, max((len(row.labels) for row in rows), default=0) + 1)
        with whole_file(path, durable=False) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", *(f"{kind}_{rank}" for rank in ranks for kind in ("label", "score"))])
            for row in rows:
                pairs = zip(row.labels, row.scores, strict=True)
                cells = (cell for label, score in pairs for cell in (as_cell(label), f"{score:.6g}"))
                writer.writerow([as_cell(row.path), *cells])
    return len(rows)


def as_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like one, and is no number, gets a quote."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _open(path: Path, unreadable: str, probe: ProbeForImageClassification) -> Image.Image | None:
    try:
        return open_image({"path": str(path), "bytes": None}, str(path), num_channels=probe.backbone.num_channels)
    except ValueError:
        if unreadable == "raise":
            raise
        return None


@torch.no_grad()
def _predict(
    probe: ProbeForImageClassification,
    opened: Sequence[tuple[Path, Image.Image]],
    top_k: int,
    chosen: list[int],
    unreadable: str,
) -> Iterator[Prediction]:
    assert probe.image_processor is not None
    pixels = probe.image_processor([image for _, image in opened], return_tensors="pt")["pixel_values"]
    logits = probe(pixels.to(probe.device)).logits
    are_finite = logits.isfinite().all(1)
    bad = [path for (path, _), is_finite in zip(opened, are_finite.tolist(), strict=True) if not is_finite]
    if bad and unreadable == "raise":
        raise ValueError(f"The probe gives no finite scores for the image {bad[0]}; leave it out (unreadable='skip').")
    opened, logits = [one for one in opened if one[0] not in bad], logits[are_finite]
    scores = _as_scores(logits, probe.config.problem_type)
    order = scores.topk(min(top_k, logits.shape[1]), dim=-1).indices
    if chosen:
        order = torch.tensor(chosen, device=logits.device).expand(len(logits), -1)
    for (path, _), values, ids in zip(opened, scores.gather(1, order).tolist(), order.tolist(), strict=True):
        yield Prediction(str(path), tuple(probe.config.id2label[i] for i in ids), tuple(values))


def _as_scores(logits: Tensor, problem_type: str) -> Tensor:
    if problem_type == "regression":
        return logits
    return logits.sigmoid() if problem_type == "multi_label_classification" else logits.softmax(-1)
