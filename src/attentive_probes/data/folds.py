"""Folds: every image is held out once, with its class and its group in mind."""

from __future__ import annotations

import numpy as np

from attentive_probes.data.hold_out import rows_by_class


def folds_of(classes: np.ndarray, num_folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The fold `(N,)` of each image, from 0: of every class each fold has about the same number of images.

    Groups stay whole: large ones first, each goes to the fold where the images of its classes are scarcest.

    Args:
        classes: Class `(N,)` of each image.
        num_folds: Number of folds, at least 2.
        seed: Seed of the draw.
        groups: Group `(N,)` of each image; `None` lets each be its own.

    Raises:
        ValueError: If there are fewer images or groups than folds.
    """
    rng, found = np.random.default_rng(seed), np.zeros(len(classes), np.int64)
    members = [] if groups is None else rows_by_class(groups)
    count = len(classes) if groups is None else len(members)
    if not 2 <= num_folds <= count:
        what = "images" if groups is None else "groups of images"
        raise ValueError(f"selection.folds is {num_folds}, of {count} {what}; it must be at least 2 and at most these.")
    if groups is None:
        first = 0
        for rows in rows_by_class(classes):  # each class begins where the last one ended, so that folds are of one size
            found[rng.permutation(rows)] = (np.arange(len(rows)) + first) % num_folds
            first += len(rows)
        return found
    _, labels = np.unique(classes, return_inverse=True)
    counts = np.stack([np.bincount(labels[rows], minlength=labels.max() + 1) for rows in members]).astype(float)
    shares, filled = counts / counts.sum(0), np.zeros((num_folds, counts.shape[1]))
    order = rng.permutation(len(members))
    for group in order[np.argsort(-counts[order].sum(1), kind="stable")]:
        fold = int(((filled + shares[group]) ** 2 - filled**2).sum(1).argmin())
        filled[fold] += shares[group]
        found[members[group]] = fold
    return found
