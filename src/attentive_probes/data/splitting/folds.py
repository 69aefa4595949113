"""Folds: every image is held out once, with its class and its group in mind."""

from __future__ import annotations

import numpy as np

from attentive_probes.data.splitting.hold_out import rows_by_class

TRIES = 8  # draws of folds of groups


def folds_of(classes: np.ndarray, num_folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The fold `(N,)` of each image, from 0: of every class each fold has about the same number of images.

    Groups stay whole: in a random order each goes to the fold where the images of its classes are scarcest; of several
    such draws the most even one is taken.

    Args:
        classes: Class `(N,)` of each image.
        num_folds: Number of folds, at least 2.
        seed: Seed of the draw.
        groups: Group `(N,)` of each image; `None` lets each be its own.

    Raises:
        ValueError: If there are fewer images or groups than folds.
    """
    if groups is not None and len(np.unique(groups)) == len(groups):
        groups = None  # all are alone
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
    drawn = [_filled(counts / counts.sum(0), rng.permutation(len(members)), num_folds) for _ in range(TRIES)]
    fold_of, _ = min(drawn, key=lambda pair: pair[1])
    for rows, fold in zip(members, fold_of.tolist(), strict=True):
        found[rows] = fold
    return found


def _filled(shares: np.ndarray, order: np.ndarray, num_folds: int) -> tuple[np.ndarray, float]:
    """The fold `(G,)` of each group, and how uneven the folds are.

    Args:
        shares: Share `(G, C)` of each class that lies in each group.
        order: Groups in the order in which they are given away, each to the fold where its classes are scarcest.
        num_folds: Number of folds.
    """
    filled, fold_of = np.zeros((num_folds, shares.shape[1])), np.zeros(len(shares), np.int64)
    for group in order:
        fold_of[group] = ((filled + shares[group]) ** 2 - filled**2).sum(1).argmin()
        filled[fold_of[group]] += shares[group]
    return fold_of, float(filled.var(0).sum())
