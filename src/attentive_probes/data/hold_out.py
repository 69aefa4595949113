"""Parts of a split by class: what is held out, what is kept of a low-shot subset."""

from __future__ import annotations

import logging

import numpy as np

logger = logging.getLogger(__name__)


def hold_out(
    classes: np.ndarray, fraction: float, seed: int, role: str = "validation"
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay and rows that are held out, class by class, each in order.

    Of every class with two images or more, `fraction` is held out, rounded, at least one and never all; the only image
    of a class stays, and a warning says so.

    Args:
        classes: Class `(N,)` of each row, of any type; all the same where there are no classes.
        fraction: Share in (0, 1).
        seed: Seed of the draw.
        role: What the part is for: `validation` or `test`.

    Raises:
        ValueError: If the share is out of range, or no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"data.{role}_fraction is {fraction}; it must be between 0 and 1.")
    rng = np.random.default_rng(seed)
    out, singles = [], 0
    for rows in rows_by_class(classes):
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        singles += count == 0
        out.append(rng.permutation(rows)[:count])
    held = np.sort(np.concatenate(out)) if out else np.empty(0, np.int64)
    if not len(held):
        raise ValueError(f"No class has two images, so none can be held out for {role}; name a data.{role}_split.")
    if singles:
        logger.warning("%d classes have a single image, which stays in training: %s lacks them.", singles, role)
    return np.setdiff1d(np.arange(len(classes)), held), held


def low_shot(
    classes: np.ndarray,
    *,
    shots: int | None = None,
    fraction: float | None = None,
    draw: int = 0,
    names: tuple[str, ...] | None = None,
    at_most: bool = False,
) -> np.ndarray:
    """Rows of a random part of a split, in order: so many images per class, or a share of each class.

    Args:
        classes: Class `(N,)` of each row; all the same where there are no classes.
        shots: Images per class.
        fraction: Share in (0, 1]; each class keeps at least one image.
        draw: Number of the draw; equal draws are equal subsets.
        names: Names of the classes, for messages.
        at_most: Whether a class may have fewer images than `shots`.

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
    for rows in rows_by_class(classes):
        count = shots if shots is not None else max(1, round(len(rows) * (fraction or 0)))
        if count > len(rows) and not at_most:
            label = classes[rows[0]].item()
            label = names[label] if names is not None else label
            raise ValueError(f"The class {label!r} has {len(rows)} images, fewer than shots={shots}.")
        kept.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(kept))


def rows_by_class(classes: np.ndarray) -> list[np.ndarray]:
    """Rows of each class, classes in order."""
    _, places = np.unique(classes, return_inverse=True)
    order = np.argsort(places, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(places[order])) + 1) if len(classes) else []
