"""What may be wrong with a column of labels that nobody sees: rows without a label, and classes that look alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attentive_probes.problems.label_columns import Labels


def unlabelled_rows(labels: Labels) -> np.ndarray:
    """Rows `(K,)` that have no label: nothing, blank text, a number that is none, or the id -1 of a `ClassLabel`."""
    array = labels.array
    missing = pc.is_null(array, nan_is_null=True)
    if labels.are_texts:
        missing = pc.or_(missing, pc.fill_null(pc.equal(pc.utf8_trim_whitespace(array), ""), True))
    elif labels.names is not None and pa.types.is_integer(array.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(array, -1), True))
    return np.flatnonzero(missing.to_numpy(zero_copy_only=False))


def plain(name: str) -> str:
    """A name as people read it: one Unicode form, small letters, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that only spaces, case or the form of their letters tell apart, those that are alike together."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(plain(name), []).append(name)
    return [tuple(members) for members in alike.values() if len(members) > 1]
