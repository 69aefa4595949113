"""The splits of a recipe as they were read: which images, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from attentive_probes.data.load import AnyData
from attentive_probes.data.pixels.content_hashes import NOTHING
from attentive_probes.files.fingerprint import bytes_fingerprint
from attentive_probes.problems.label_columns import names_of
from attentive_probes.problems.label_table import LabelTable

ROLES = ("train", "validation", "test")


@dataclass
class Part:
    """Images of a split.

    Args:
        data: The images.
        rows: Where they lie in the split that they were drawn from; `None` for all of it.
        groups: What belongs together, if that is known: what the data say, and copies of an image.
        folds: The fold of each, as text, if the data say so.
        content: A hash `(N,)` of the bytes of each image, where these were read.
    """

    data: AnyData
    rows: np.ndarray | None = None
    groups: np.ndarray | None = None
    content: np.ndarray | None = None
    folds: np.ndarray | None = None

    def select(self, places: np.ndarray) -> Part:
        """Some of them."""
        rows = places if self.rows is None else self.rows[places]
        known = (self.groups, self.content, self.folds)
        return Part(self.data.select(places), rows, *(None if part is None else part[places] for part in known))

    def by_row(self) -> dict[int, str] | None:
        """Row in the split that it was drawn from -> what its image belongs to; `None` if nothing is known of it."""
        if self.groups is None:
            return None
        return dict(zip(self.all_rows.tolist(), self.groups.tolist(), strict=True))

    def copies(self) -> np.ndarray:
        """The name of the content `(N,)` of each image, as text; an image that cannot be read is like no other one."""
        assert self.content is not None
        names = self.content.astype(np.uint64).astype(str).astype(object)
        is_blank = self.content == np.frombuffer(NOTHING, np.uint64)
        names[is_blank] = [f"row {row}" for row in self.all_rows[is_blank].tolist()]
        return names.astype(str)

    @property
    def all_rows(self) -> np.ndarray:
        """Where its images lie in the split that they were drawn from."""
        return np.arange(len(self.data)) if self.rows is None else self.rows

    def groups_at(self, rows: np.ndarray) -> np.ndarray | None:
        """The group of each of some images `(K,)`, given by their rows in the split that they were drawn from."""
        return None if self.groups is None else self.groups[self._places(rows)]

    def folds_at(self, rows: np.ndarray) -> np.ndarray | None:
        """The fold of each of some images, as `groups_at`."""
        return None if self.folds is None else self.folds[self._places(rows)]

    def _places(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.rows is None else np.searchsorted(self.rows, rows)


@dataclass
class RawSplits:
    """The splits of a recipe as they were read, and the one table of their labels.

    Args:
        parts: Role -> its images.
        table: The classes.
        warnings: What a reader may want to know of them.
    """

    parts: dict[str, Part]
    table: LabelTable
    warnings: tuple[str, ...] = ()

    def by_name(self) -> dict[str, AnyData | None]:
        """Name -> split: `train`, `validation`, and `test`, which may be none."""
        return {name: self.parts[name].data if name in self.parts else None for name in ROLES}

    def pool_groups(self, opened: Mapping[str, Any]) -> np.ndarray | None:
        """The group of every training, then validation image of opened splits; `None` if none are known."""
        return self._of_pool(opened, Part.groups_at)

    def pool_folds(self, opened: Mapping[str, Any]) -> np.ndarray | None:
        """The fold of every training, then validation image of opened splits; `None` if the data say nothing of it."""
        return self._of_pool(opened, Part.folds_at)

    def _of_pool(
        self, opened: Mapping[str, Any], at: Callable[[Part, np.ndarray], np.ndarray | None]
    ) -> np.ndarray | None:
        found = [at(self.parts[name], opened[name].rows) for name in ("train", "validation")]
        known = [values for values in found if values is not None]
        return np.concatenate(known) if len(known) == len(found) else None

    def num_groups(self) -> dict[str, int]:
        """Name of each held split that judges -> number of its groups, where these are known."""
        judges = {name: self.parts[name] for name in ROLES[1:] if name in self.parts}
        return {name: len(np.unique(part.groups)) for name, part in judges.items() if part.groups is not None}

    def contents(self, label_column: str) -> dict[str, str]:
        """Name of each split whose images were read -> a hash of these and their labels, whatever their order."""
        found = {}
        for name, part in self.parts.items():
            if part.content is not None:
                labels = part.data.select_columns([label_column])[label_column]
                names = names_of(part.data.features.get(label_column))
                texts = [names[i] if names is not None and isinstance(i, int) and i >= 0 else i for i in labels]
                pairs = sorted(f"{digest} {text}" for digest, text in zip(part.copies().tolist(), texts, strict=True))
                found[name] = bytes_fingerprint("\n".join(pairs))
        return found

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """Where the images of a split that was drawn lie in the one it was drawn from."""
        return {name: part.rows for name, part in self.parts.items() if part.rows is not None}
