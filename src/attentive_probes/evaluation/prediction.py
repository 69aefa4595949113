"""Classify image files with a probe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from attentive_probes.checks import unknown_name
from attentive_probes.data.pixels.decode import open_file
from attentive_probes.data.sources.find import SHARDS, TABLES
from attentive_probes.data.sources.listing import Folder, readable
from attentive_probes.data.sources.read_tables import read_rows
from attentive_probes.data.sources.readers import path_column
from attentive_probes.data.sources.table_paths import FilesOfTable
from attentive_probes.evaluation.predictions.image_pixels import check_processor, pixels_of
from attentive_probes.files.fingerprint import fingerprint_of, tensors_checksum
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.probabilities import as_scores
from attentive_probes.problems.label_table import LabelTable

OK, UNSURE = "ok", "unsure"
UNREADABLE = ("raise", "skip", "report")


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image file.

    Args:
        path: The file.
        labels: Names of the best classes, best first.
        scores: Their probabilities (targets of a regression as they are).
        status: `ok`; `unsure`, if the best probability is below a threshold; or why there is none.
    """

    path: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    status: str = OK


def identity_of(probe: ProbeForImageClassification, **options: Any) -> dict[str, Any]:
    """What predictions depend on beside the files: the probe, by its tensors and its configuration, and options."""
    config = probe.config
    return {
        "probe": tensors_checksum(probe.head.state_dict()),
        "adapter": config.adapter_checksum,
        "backbone": config.backbone_fingerprint,
        "classes": fingerprint_of({"id2label": config.id2label, "head": config.head}),
        "temperature": config.temperature,
        **options,
    }


def find_images(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """All image files among files and folders (with their subfolders), each once, in order of name within a folder.

    Hidden files and leftovers of file managers in folders do not count, as in training. A table (CSV, TSV, JSON Lines)
    stands for the images that it names.

    Raises:
        ValueError: If a path does not exist, or there is no image at all.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"There is no file or folder {str(path)!r}.")
        found.update(dict.fromkeys(_images_of(path)))
    files = list(found)
    if not files:
        raise ValueError("There is no image file in the given paths.")
    return files


def _images_of(path: Path) -> Iterable[Path]:
    ending = path.suffix.lower()
    if path.is_dir():
        return map(Path, Folder.of(path).images())
    if ending in TABLES:
        rows = read_rows(path)
        column = path_column(rows[0])
        if column is None:
            raise ValueError(f"{path} has the columns {list(rows[0])}, none of which is called like one of images.")
        files = FilesOfTable(path)
        return [Path(files.find(str(row[column])) or str(row[column])) for row in rows]
    if ending in SHARDS:
        raise ValueError(
            f"{path} holds data, not an image: evaluate --dataset {path} scores a labelled split; to predict, bring "
            "image files, folders of them, or a table of paths."
        )
    return [path]


def predict_files(
    probe: ProbeForImageClassification,
    files: Sequence[Path],
    *,
    top_k: int = 5,
    batch_size: int = 64,
    unreadable: str = "raise",
    labels: Sequence[Any] = (),
    threshold: float = 0.0,
) -> Iterator[Prediction]:
    """Classify image files, batch by batch, in their order.

    Probabilities are those of the probe after its temperature, which a training fits on its validation split.

    Args:
        probe: The probe, with its image processor.
        files: Image files.
        top_k: Number of classes to name; all, if there are fewer.
        batch_size: Images per forward pass.
        unreadable: What of files that are no readable image, or get no finite scores: `raise`; `skip` leaves them out;
            `report` gives them without labels, with the reason as their status.
        labels: Classes to score, by name or label, in place of the best ones.
        threshold: Probability of the best class below which the status is `unsure`.

    Raises:
        ValueError: If the probe has no image processor, does not know a label, a setting is out of range, or an image
            cannot be read under the policy `raise`.
    """
    check_processor(probe)
    if unreadable not in UNREADABLE:
        raise ValueError(unknown_name("policy for unreadable files:", unreadable, UNREADABLE))
    if threshold and (not probe.config.problem.has_classes or not 0 <= threshold <= 1):
        raise ValueError(f"threshold is {threshold}; it must be a probability, and the probe one of classes.")
    table = LabelTable.from_config(probe.config)
    ids = [table.id_of(label) for label in labels]
    if None in ids:
        raise ValueError(table.unknown(labels[ids.index(None)]))
    probe.eval()
    chosen = [i for i in ids if i is not None]
    with tqdm(total=len(files), unit="img", leave=False, disable=None) as bar:
        for start in range(0, len(files), batch_size):
            chunk = files[start : start + batch_size]
            yield from _predict(probe, chunk, top_k, chosen, unreadable, threshold)
            bar.update(len(chunk))


def _open(path: Path, probe: ProbeForImageClassification) -> Tensor | str:
    """The pixels of an image `(1, C, H, W)`, or why there are none; the photograph is let go."""
    try:
        image = open_file(path, probe.backbone.num_channels)
    except ValueError as error:
        return str(error)
    return pixels_of(probe, [image])


@torch.no_grad()
def _predict(
    probe: ProbeForImageClassification,
    files: Sequence[Path],
    top_k: int,
    chosen: list[int],
    unreadable: str,
    threshold: float,
) -> Iterator[Prediction]:
    found = [_open(path, probe) for path in files]
    images = [image for image in found if not isinstance(image, str)]
    scores: Iterator[Prediction | None] = iter(())
    if images:
        scores = iter(_answers(probe, probe(torch.cat(images)).logits, top_k, chosen, threshold))
    for path, image in zip(files, found, strict=True):
        answer = None if isinstance(image, str) else next(scores)
        problem = image if isinstance(image, str) else f"The probe gives no finite scores for the image {path}"
        if answer is not None:
            yield replace(answer, path=readable(path))
        elif unreadable == "raise":
            raise ValueError(problem if isinstance(image, str) else f"{problem}; leave it out (unreadable='skip').")
        elif unreadable == "report":
            yield Prediction(readable(path), (), (), readable(" ".join(problem.split())))


def _answers(
    probe: ProbeForImageClassification, logits: Tensor, top_k: int, chosen: list[int], threshold: float
) -> list[Prediction | None]:
    """What the probe says about each image; nothing where a score is no finite number."""
    scores = as_scores(logits, probe.config)
    order = scores.nan_to_num(-torch.inf).topk(min(top_k, logits.shape[1]), dim=-1).indices
    if chosen:
        order = torch.tensor(chosen, device=logits.device).expand(len(logits), -1)
    names = probe.config.id2label
    are_finite = logits.isfinite().all(1).tolist()
    statuses = [UNSURE if threshold and best < threshold else OK for best in scores.amax(1).tolist()]
    rows = zip(scores.gather(1, order).tolist(), order.tolist(), statuses, are_finite, strict=True)
    return [
        Prediction("", tuple(names[i] for i in ids), tuple(values), status) if is_finite else None
        for values, ids, status, is_finite in rows
    ]
