"""Which of many candidates are worse than the best by more than chance, where the same images chose the best.

Whoever is best of many equals is ahead by luck. So the difference of a candidate to the best is compared with the
largest difference between any two of all candidates that chance alone makes: every image, or group of images, favours
one of two equal candidates as easily as the other, so its sign is turned at random (Westfall and Young, "Resampling-
Based Multiple Testing", 1993; sign flips also hold with a handful of groups).
"""

from __future__ import annotations

import numpy as np

NUM_FLIPS = 2000
STRETCH = 2**24  # numbers that are held at a time


def told_apart(values: np.ndarray, best: int, groups: np.ndarray | None = None) -> np.ndarray:
    """P-values `(K,)` of each candidate being as good as the best, corrected for all pairs that it was chosen among.

    If all are equal, one of them is below 0.05 in at most 5% of tables.

    Args:
        values: What each candidate is worth on each image, such as 0 or 1, `(K, N)`.
        best: The one with the best mean.
        groups: Group `(N,)` of images that are no independent draws.
    """
    sums = values.astype(np.float64).T  # (N, K)
    if groups is not None:
        _, places = np.unique(groups, return_inverse=True)
        summed = np.zeros((places.max() + 1, sums.shape[1]))
        np.add.at(summed, places, sums)
        sums = summed
    if len(sums) < 2 or sums.shape[1] < 2:
        return np.ones(sums.shape[1])
    sums = sums[(sums != sums[:, :1]).any(1)]  # where all agree, nothing is turned
    first, second = np.triu_indices(sums.shape[1], 1)
    products = sums.T @ sums
    squares = products[first, first] + products[second, second] - 2 * products[first, second]
    is_unlike = squares > 1e-9 * max(1.0, float(squares.max(initial=0.0)))
    first, second, scale = first[is_unlike], second[is_unlike], np.sqrt(squares[is_unlike])
    if not len(first):
        return np.ones(sums.shape[1])
    largest = _largest(sums, first, second, scale)
    gaps = sums.sum(0)[best] - sums.sum(0)
    own = np.sqrt(np.maximum(products[best, best] + np.diag(products) - 2 * products[best], 0.0))
    with np.errstate(all="ignore"):
        ratios = np.where(gaps != 0, np.abs(gaps) / own, 0.0)
    beyond = (largest[:, None] >= ratios[None] - 1e-9).sum(0)
    return np.where(ratios > 0, (beyond + 1) / (len(largest) + 1), 1.0)


def _largest(sums: np.ndarray, first: np.ndarray, second: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The largest difference of any two, relative to its scale, in each of the random turns."""
    rng, found = np.random.default_rng(0), []
    size = max(1, STRETCH // max(len(sums), len(first)))
    for start in range(0, NUM_FLIPS, size):
        count = min(size, NUM_FLIPS - start)
        turned = (2.0 * rng.integers(0, 2, (count, len(sums)), dtype=np.int8) - 1.0) @ sums  # (R, K)
        found.append((np.abs(turned[:, first] - turned[:, second]) / scale).max(1))
    return np.concatenate(found)
