"""Nearest neighbours among images, by features and by pixels: near duplicates, and images that are like no other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CHUNK = 1024  # images that are compared with all others at a time
FAR = 10  # neighbour whose distance says how far off an image is
DUPLICATE = 0.1  # of the typical distance to the nearest neighbour, below which two images are one
SIDE = 16  # pixels of a thumbnail
EQUAL = 0.997  # correlation of two thumbnails from which on they show one image
OUTLIER = 6.0  # robust standard deviations


class Neighbours(NamedTuple):
    """Of N images: nearest ones and their distances `(N, K)`, nearest first; distances are one less cosines."""

    indices: np.ndarray
    distances: np.ndarray


def standardized(features: Tensor, known: Tensor | None = None) -> Tensor:
    """Features `(N, F)` of mean 0 and deviation 1 in every dimension, as others `(M, F)` have them, of length 1."""
    known = features if known is None else known
    scaled = (features - known.mean(0)) / known.std(0).clamp(min=1e-6)
    return torch.nn.functional.normalize(scaled.float(), dim=1)


@torch.no_grad()
def find_neighbours(features: Tensor, count: int = FAR) -> Neighbours:
    """The nearest other images of each image by features `(N, F)` of length 1.

    Args:
        features: As `standardized` gives them.
        count: Number of neighbours K, less if there are fewer images.
    """
    count = min(count, len(features) - 1)
    indices, distances = [], []
    for first in range(0, len(features), CHUNK):
        similarity = features[first : first + CHUNK] @ features.T
        rows = torch.arange(len(similarity))
        similarity[rows, rows + first] = -2.0  # not itself
        found = similarity.topk(count, dim=1)
        indices.append(found.indices.cpu().numpy())
        distances.append((1 - found.values).clamp(min=0).cpu().numpy())
    return Neighbours(np.concatenate(indices), np.concatenate(distances))


def near_duplicates(neighbours: Neighbours, ratio: float = DUPLICATE) -> list[tuple[int, int, float]]:
    """Pairs of images that are nearly one: their distance is less than a share of the typical nearest distance.

    Returns:
        Row, larger row, and their distance over the typical one; the nearest first.
    """
    typical = float(np.median(neighbours.distances[:, 0]))
    if typical == 0:  # most images have a copy
        typical = (
            float(np.median(neighbours.distances[neighbours.distances > 0])) if neighbours.distances.any() else 1.0
        )
    found = {}
    for row, place in zip(*np.nonzero(neighbours.distances < ratio * typical), strict=True):
        other = int(neighbours.indices[row, place])
        found[min(row, other), max(row, other)] = float(neighbours.distances[row, place]) / typical
    return sorted(((int(one), int(other), value) for (one, other), value in found.items()), key=lambda pair: pair[2])


def thumbnail(image: Image.Image) -> np.ndarray:
    """Grey values `(256,)` of an image made 16 pixels wide and high."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32).ravel()


@torch.no_grad()
def equal_pixels(thumbnails: np.ndarray, least: float = EQUAL) -> list[tuple[int, int, float]]:
    """Pairs of near-duplicate images: thumbnails that are equal up to brightness and contrast.

    Args:
        thumbnails: Grey values `(N, P)`.
        least: Correlation from which on two are equal.

    Returns:
        Row, larger row, and 1 less the correlation, over what is allowed; the nearest first.
    """
    grey = torch.from_numpy(thumbnails).float()
    grey = grey - grey.mean(1, keepdim=True)
    found = []
    lengths = grey.norm(dim=1, keepdim=True)
    grey = torch.where(lengths > 1e-3, grey / lengths.clamp(min=1e-3), 0.0)  # a blank one equals nothing
    for first in range(0, len(grey), CHUNK):
        similarity = grey[first : first + CHUNK] @ grey.T
        for row, other in zip(*torch.nonzero(similarity >= least, as_tuple=True), strict=True):
            one, two = int(row) + first, int(other)
            if one < two:
                found.append((one, two, (1 - float(similarity[row, other])) / (1 - least)))
    return sorted(found, key=lambda pair: pair[2])


def outliers(neighbours: Neighbours, limit: float = OUTLIER) -> list[tuple[int, float]]:
    """Images that are far from all others: rows and robust deviations of the distance to their farthest neighbour here.

    Args:
        neighbours: Of all images.
        limit: Deviations, by the median of absolute deviations, from which on an image is one.

    Returns:
        The farthest first.
    """
    far = neighbours.distances[:, -1]
    spread = 1.4826 * float(np.median(np.abs(far - np.median(far))))
    score = (far - np.median(far)) / max(spread, 1e-6)
    return [(int(row), float(score[row])) for row in np.argsort(-score, kind="stable") if score[row] > limit]
