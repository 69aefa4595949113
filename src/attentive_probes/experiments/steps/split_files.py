"""Which image is in which split, as files: written beside a run, or listing what to keep."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, Image

from attentive_probes.data.splitting.groups import counted, paths_of
from attentive_probes.data.splitting.split_parts import Part, RawSplits
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.files.untrusted import untrusted
from attentive_probes.files.writing import csv_file
from attentive_probes.problems.label_columns import names_of


def write_keep(raw: RawSplits, dropped: Mapping[str, Collection[int]], path: Path) -> int:
    """Write which images of every split to keep, for `data.keep`; returns how many are to be left out.

    An image is known by its content; `keep` is 1 or 0, and `row` is for people.

    Args:
        raw: The splits; streams are left out.
        dropped: Split -> rows, as they lie in the split that theirs was drawn from.
        path: `.csv` file.
    """
    count = 0
    with csv_file(path, ["split", "row", "content", "keep"]) as writer:
        for role, part in raw.parts.items():
            if isinstance(part.data, Dataset):
                rows = part.all_rows.tolist()
                contents = [""] * len(rows) if part.content is None else part.copies().tolist()
                kept = [int(row not in dropped.get(role, ())) for row in rows]
                writer.writerows([role, *line] for line in zip(rows, contents, kept, strict=True))
                count += len(rows) - sum(kept)
    return count


class KeptImage(NamedTuple):
    """An image of a list: its row, its content (empty if the list does not say), and whether to keep it."""

    row: int
    content: str
    is_kept: bool


def read_keep(path: Path) -> dict[str, list[KeptImage]]:
    """Split -> its images in a list of what to keep.

    Raises:
        ValueError: If there is no such file, or it has no columns `split` and `row`.
    """
    with untrusted(path, "a list of rows to keep"), path.open(newline="", encoding="utf-8") as file:
        found: dict[str, list[KeptImage]] = {}
        for line in csv.DictReader(file):
            image = KeptImage(int(line["row"]), line.get("content") or "", line.get("keep", "1") != "0")
            found.setdefault(line["split"], []).append(image)
    return found


def kept_of(role: str, part: Part, listed: Mapping[str, list[KeptImage]], path: str) -> Part:
    """What a list keeps of a part of some data: by content, so that images that came or went since are noticed.

    Args:
        role: Name of the split.
        part: The images, with their content.
        listed: As `read_keep` gave it.
        path: Where that was read, for messages.

    Raises:
        ValueError: If the part has images that the list does not know, or the other way round, or none is kept.
    """
    if not isinstance(part.data, Dataset):
        raise ValueError(f"data.keep={path!r} lists rows, which a stream has none of; leave it out.")
    images = listed.get(role, [])
    by_content = part.content is not None and bool(images) and all(image.content for image in images)
    if by_content:
        known = dict(zip(_keys([image.content for image in images]), images, strict=True))
        here = _keys(part.copies().tolist())
    else:  # a list of what is kept alone
        known = {str(image.row): image for image in images}
        here = [str(row) for row in part.all_rows.tolist()]
    new = [key for key in here if key not in known] if by_content else []
    lost = known.keys() - set(here)
    if new or lost or not any(image.is_kept for image in images):
        what = f"does not know {len(new):,} of its images" if new else f"lists {len(lost):,} images that are not in it"
        what = what if images else "lists none of its images"
        raise ValueError(
            f"data.keep={path!r} {what}, for the {role} split: images came or went since, or it belongs to other "
            "splits, another data set, split_seed or fraction. Audit again."
        )
    return part.select(np.flatnonzero([key in known and known[key].is_kept for key in here]))


def _keys(contents: Sequence[str]) -> list[str]:
    """A name for every image: its content, and how many of the same came before."""
    names = np.asarray(contents, str)
    return [f"{name} {number}" for name, number in zip(contents, counted(names).tolist(), strict=True)]


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
