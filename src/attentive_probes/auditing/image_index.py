"""Which image is behind a row of all splits together: its file, its label, its bytes, its look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from attentive_probes.auditing.findings import Finding
from attentive_probes.auditing.neighbours import thumbnail
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.pixels.content_hashes import NOTHING


class ImageIndex:
    """The images of several splits, one after the other.

    Args:
        splits: Name -> images.
        names: Names in order.
        places: Of each split, places of its images that could be read.
        id2label: Class id -> name.
        labels: Class id `(N,)` of every image.
    """

    def __init__(
        self,
        splits: Mapping[str, ImageSplit],
        names: Sequence[str],
        places: Sequence[np.ndarray],
        id2label: Mapping[int, str],
        labels: np.ndarray,
    ):
        self.splits, self.id2label, self.labels = splits, id2label, labels
        self.names = np.repeat(np.array(names, object), [len(part) for part in places])
        self.places = np.concatenate(places)
        content = [splits[name].content()[part] for name, part in zip(names, places, strict=True)]
        self.content = np.concatenate(content)

    def finding(self, kind: str, row: int, score: float, likely: int | None = None, **other: Any) -> Finding:
        """What is to be told of the image of a row."""
        split, place, label = str(self.names[row]), int(self.places[row]), int(self.labels[row])
        file, name = self._file(split, place), self.id2label[label]
        named = "" if likely is None or likely == label else self.id2label[likely]
        return Finding(
            kind, split, int(self.splits[split].rows[place]), place, file, name, score, likely=named, **other
        )

    def thumbnails(self) -> tuple[np.ndarray, np.ndarray]:
        """Grey values `(N, 256)` of all images made 16 pixels wide and high, and their sizes `(N, 2)`, width first."""

        def look(row: int) -> tuple[np.ndarray, tuple[int, int]]:
            image = self.splits[str(self.names[row])][int(self.places[row])].image
            assert image is not None  # the backbone has read it
            return thumbnail(image), image.size

        with ThreadPoolExecutor() as pool:
            small, sizes = zip(*pool.map(look, range(len(self.names))), strict=True)
        return np.stack(small), np.array(sizes)

    def pairs(self, near: Mapping[tuple[int, int], float]) -> Iterator[Finding]:
        """Copies within and across splits: rows that are near, by their distance, and those of equal bytes."""
        distances = dict(near)
        for one, other in self._equal():
            distances[one, other] = 0.0
        for (one, other), distance in distances.items():
            split, place = str(self.names[other]), int(self.places[other])
            kind = "leak" if split != self.names[one] else "duplicate"
            row = int(self.splits[split].rows[place])
            pair = {
                "other_split": split,
                "other_row": row,
                "other_place": place,
                "other_file": self._file(split, place),
            }
            yield self.finding(kind, one, 1 - distance, int(self.labels[other]), **pair)

    def classes(self) -> dict[str, dict[str, int]]:
        """Split -> images by class."""
        counts = {}
        for name in self.splits:
            of_split = np.bincount(self.labels[self.names == name], minlength=len(self.id2label))
            counts[name] = {self.id2label[label]: int(count) for label, count in enumerate(of_split)}
        return counts

    def _equal(self) -> Iterator[tuple[int, int]]:
        """Each image with the first one that has the same bytes."""
        _, first, places = np.unique(self.content, return_index=True, return_inverse=True)
        nothing = np.frombuffer(NOTHING, np.uint64)[0]
        for row, place in enumerate(places):
            if first[place] != row and self.content[row] != nothing:
                yield int(first[place]), row

    def _file(self, split: str, place: int) -> str:
        images = self.splits[split]
        cell = images.data[place][images.options.image_column]
        return str(cell.get("path") or "") if isinstance(cell, dict) and cell.get("bytes") is None else ""
