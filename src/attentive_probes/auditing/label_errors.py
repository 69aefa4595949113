"""Labels that are likely wrong: confident learning on probabilities of probes that never saw the images they judge.

"Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv 1911.00068.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attentive_probes.evaluation.logistic import fit_logistic

MARGIN = 0.5


class Suspect(NamedTuple):
    """An image whose label is likely wrong.

    Args:
        row: Its row.
        label: Class id that it has.
        likely: Class id that it likely should have.
        margin: How much more probable that is, from 0 to 1.
    """

    row: int
    label: int
    likely: int
    margin: float


class Confusion(NamedTuple):
    """Two classes that are taken for each other, and the shares of the images of each that are."""

    first: int
    second: int
    first_as_second: float
    second_as_first: float


def cross_fitted(
    features: Tensor, labels: Tensor, folds: np.ndarray, num_labels: int, inverse_l2: Sequence[float] = (0.01, 0.1, 1.0)
) -> np.ndarray:
    """Class probabilities `(N, C)` of every image by a logistic regression that was fitted on the other folds.

    Args:
        features: Features `(N, F)`.
        labels: Class ids `(N,)`.
        folds: Fold `(N,)` of each image, from 0.
        num_labels: Number of classes C.
        inverse_l2: Inverse strengths of the regularization, of which the one with the least loss on held images is
            taken.
    """
    scaled = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
    found = {value: torch.zeros(len(labels), num_labels) for value in inverse_l2}
    for fold in range(int(folds.max()) + 1):
        held, model = torch.from_numpy(folds == fold), None
        for value in sorted(inverse_l2):
            model = fit_logistic(scaled[~held], labels[~held], num_labels, value, start=model)
            found[value][held] = model(scaled[held]).log_softmax(1)
    best = max(inverse_l2, key=lambda value: found[value].gather(1, labels[:, None]).mean().item())
    return found[best].exp().numpy()


def label_suspects(probabilities: np.ndarray, labels: np.ndarray, least: float = MARGIN) -> list[Suspect]:
    """Images that are confidently of another class than their label says, the surest first.

    An image is confidently of a class if its probability there reaches the average that images of that label have: of
    several, the most probable. Those off the diagonal of labels against confident classes are suspects.

    Args:
        probabilities: Class probabilities `(N, C)` by models that did not learn from the image.
        labels: Class ids `(N,)`.
        least: How much more probable the other class is, at least: what is unsure between two is no mistake.
    """
    num_labels = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=num_labels)
    thresholds = np.bincount(labels, own, num_labels) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely = confident.argmax(1)
    margin = probabilities[np.arange(len(labels)), likely] - own
    rows = np.flatnonzero((confident.max(1) > 0) & (likely != labels) & (margin >= least))
    order = rows[np.argsort(-margin[rows], kind="stable")]
    return [Suspect(int(row), int(labels[row]), int(likely[row]), float(margin[row])) for row in order]


def mutual_confusions(probabilities: np.ndarray, labels: np.ndarray, least: float = 0.05) -> list[Confusion]:
    """Pairs of classes of which at least a share of the images of each is taken for the other, the worst first.

    Args:
        probabilities: Class probabilities `(N, C)` by models that did not learn from the image.
        labels: Class ids `(N,)`.
        least: That share.
    """
    num_labels = probabilities.shape[1]
    predictions = probabilities.argmax(1)
    counts = np.bincount(labels * num_labels + predictions, minlength=num_labels**2).reshape(num_labels, num_labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    both = np.triu(np.minimum(shares, shares.T), 1)
    pairs = sorted(zip(*np.nonzero(both >= least), strict=True), key=lambda pair: -both[pair])
    return [Confusion(int(i), int(j), float(shares[i, j]), float(shares[j, i])) for i, j in pairs]
