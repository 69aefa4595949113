"""Which image is in which split, as files: written beside a run, or listing what to keep."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset, Image

from attentive_probes.data.splitting.groups import paths_of
from attentive_probes.data.splitting.split_parts import Part, RawSplits
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.files.untrusted import untrusted
from attentive_probes.files.writing import csv_file
from attentive_probes.problems.label_columns import names_of


def write_keep(raw: RawSplits, dropped: Mapping[str, Collection[int]], path: Path) -> int:
    """Write the rows of every split but some, for `data.keep`; returns how many were left out.

    Args:
        raw: The splits; streams are left out.
        dropped: Split -> rows, as they lie in the split that theirs was drawn from.
        path: `.csv` file.
    """
    count = 0
    with csv_file(path, ["split", "row"]) as writer:
        for role, part in raw.parts.items():
            if isinstance(part.data, Dataset):
                rows = part.all_rows.tolist()
                kept = [row for row in rows if row not in dropped.get(role, ())]
                writer.writerows([role, row] for row in kept)
                count += len(rows) - len(kept)
    return count


def read_keep(path: Path) -> dict[str, list[int]]:
    """Split -> the rows that a file keeps of it.

    Raises:
        ValueError: If there is no such file, or it has no columns `split` and `row`.
    """
    with untrusted(path, "a list of rows to keep"), path.open(newline="", encoding="utf-8") as file:
        found: dict[str, list[int]] = {}
        for line in csv.DictReader(file):
            found.setdefault(line["split"], []).append(int(line["row"]))
    return found


def kept_of(role: str, part: Part, listed: Mapping[str, list[int]], path: str) -> Part:
    """What a file keeps of a part of some data.

    Args:
        role: Name of the split.
        part: The images.
        listed: As `read_keep` gave it.
        path: Where that was read, for messages.

    Raises:
        ValueError: If it lists rows that the part does not have, or none.
    """
    if not isinstance(part.data, Dataset):
        raise ValueError(f"data.keep={path!r} lists rows, which a stream has none of; leave it out.")
    rows = np.array(listed.get(role, []), np.int64)
    unknown = np.setdiff1d(rows, part.all_rows)
    if len(unknown) or not len(rows):
        what = f"row {unknown[0]}, which is not in it" if len(unknown) else "none of its images"
        raise ValueError(
            f"data.keep={path!r} lists {what} for the {role} split; it belongs to other splits, of another data set, "
            "split_seed or fraction."
        )
    return part.select(np.flatnonzero(np.isin(part.all_rows, rows)))


def write_splits(raw: RawSplits, data: DataRecipe, path: Path) -> None:
    """Write which image is in which split: `split`, `row` in the file it was read from, `file`, `label`, `group`.

    Args:
        raw: The splits; streams are left out.
        data: Columns of images and labels.
        path: `.csv` file.
    """
    with csv_file(path, ["split", "row", "file", "label", "group"], durable=False) as writer:
        for role, part in raw.parts.items():
            if not isinstance(part.data, Dataset):
                continue
            labels = part.data.select_columns([data.images.label_column])[data.images.label_column]
            names = names_of(part.data.features.get(data.images.label_column))
            files = _files_of(part.data, data.images.image_column)
            for place, (row, label, name) in enumerate(zip(part.all_rows.tolist(), labels, files, strict=True)):
                text = names[label] if names is not None and isinstance(label, int) and label >= 0 else label
                group = "" if part.groups is None else part.groups[place]
                writer.writerow([role, row, *(as_cell(str(cell)) for cell in (name, text, group))])


def _files_of(dataset: Dataset, image_column: str) -> Iterable[str]:
    """The file of each image; nothing of images that lie in tables, for their bytes would be read with their names."""
    plain = dataset.select_columns([image_column]).cast_column(image_column, Image(decode=False))
    is_file = plain[0][image_column].get("bytes") is None
    return paths_of(dataset, image_column) if is_file else [""] * len(dataset)
