"""Low-shot subsets of a training split."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset


def subset(
    dataset: Dataset, label_column: str, *, shots: int | None = None, fraction: float | None = None, draw: int = 0
) -> Dataset:
    """A random part of a split: so many images per class, or a share of each class.

    Args:
        dataset: The split.
        label_column: Column of class ids, names or other labels.
        shots: Images per class; every class must have that many.
        fraction: Share in (0, 1]; each class keeps at least one image. Labels that are no classes count as one class.
        draw: Number of the draw; equal draws are equal subsets, in the order of the split.

    Raises:
        ValueError: If both or neither is given, a number is out of range, or a class has too few images.
    """
    if (shots is None) == (fraction is None):
        raise ValueError("Give either shots, a number per class, or fraction, a share.")
    if shots is not None and shots < 1:
        raise ValueError(f"shots is {shots}; it must be at least 1.")
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it must be above 0 and at most 1.")
    rng = np.random.default_rng(draw)
    kept = []
    for label, rows in _rows_by_class(dataset, label_column).items():
        count = shots if shots is not None else max(1, round(len(rows) * (fraction or 0)))
        if count > len(rows):
            raise ValueError(f"The class {label!r} has {len(rows)} images, fewer than shots={shots}.")
        kept.append(rng.permutation(rows)[:count])
    return dataset.select(np.sort(np.concatenate(kept)))


def _rows_by_class(dataset: Dataset, label_column: str) -> dict[object, np.ndarray]:
    labels = dataset[label_column][:]
    if not labels or isinstance(labels[0], list | float):
        return {"all": np.arange(len(dataset))}
    feature = dataset.features[label_column]
    names = feature.names if isinstance(feature, ClassLabel) else None
    values, inverse = np.unique(np.asarray(labels), return_inverse=True)
    return {(names[int(value)] if names else value): np.flatnonzero(inverse == i) for i, value in enumerate(values)}
