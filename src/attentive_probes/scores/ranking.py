"""How well scores rank: areas under curves, sensitivity, correlation; and agreement of classes in order."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Probability that a positive image scores above a negative one, ties counted half; `nan` of one kind alone.

    Args:
        scores: `(N,)`.
        is_positive: `(N,)` truth values.
    """
    positives = int(is_positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return float("nan")
    return float((ranks(scores)[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Average precision: the mean, over positive images, of the share of positives among all that score as high.

    Args:
        scores: `(N,)`.
        is_positive: `(N,)` truth values.
    """
    if not is_positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits, ordered = np.cumsum(is_positive[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # the end of each run of equal scores
    precision, found = hits[last] / (last + 1), np.diff(hits[last], prepend=0)
    return float((precision * found).sum() / is_positive.sum())


def sensitivity_at(scores: np.ndarray, is_positive: np.ndarray, specificity: float) -> float:
    """Share of the positives above the least threshold that leaves at least a share of the negatives at or below it.

    Args:
        scores: `(N,)`.
        is_positive: `(N,)` truth values.
        specificity: That share.
    """
    negatives, positives = np.sort(scores[~is_positive]), scores[is_positive]
    if not len(negatives) or not len(positives):
        return float("nan")
    place = int(np.ceil(specificity * len(negatives) - 1e-9)) - 1
    threshold = negatives[place] if place >= 0 else -np.inf
    return float((positives > threshold).mean())


def quadratic_kappa(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> float:
    """Cohen's kappa of classes in order, where an error counts as the square of its distance; `nan` without spread.

    "Weighted kappa", Psychological Bulletin 70, 1968.

    Args:
        labels: Class ids `(N,)`.
        predictions: Class ids `(N,)`.
        num_labels: Number of classes C.
    """
    observed = np.bincount(labels * num_labels + predictions, minlength=num_labels**2).reshape(num_labels, num_labels)
    expected = np.outer(observed.sum(1), observed.sum(0)) / max(len(labels), 1)
    weights = np.square(np.subtract.outer(np.arange(num_labels), np.arange(num_labels)))
    total = (weights * expected).sum()
    return float(1 - (weights * observed).sum() / total) if total else float("nan")


def pearson(scores: np.ndarray, targets: np.ndarray) -> float:
    """Correlation of predictions and targets, both `(N,)`; `nan` where one of them is constant."""
    centred, other = scores - scores.mean(), targets - targets.mean()
    scale = np.sqrt((centred**2).sum() * (other**2).sum())
    return float((centred * other).sum() / scale) if scale else float("nan")


def spearman(scores: np.ndarray, targets: np.ndarray) -> float:
    """Correlation of the ranks of predictions and targets, both `(N,)`."""
    return pearson(ranks(scores), ranks(targets))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks `(N,)` from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]
