"""Parts of a split by class: what is held out, what is kept of a low-shot subset."""

from __future__ import annotations

import hashlib
import logging

import numpy as np

logger = logging.getLogger(__name__)


def hold_out(
    classes: np.ndarray, units: np.ndarray, fraction: float, seed: int, role: str = "validation"
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay and rows that are held out, class by class, each in order.

    Units are looked at in the order of a hash of the seed and their name, whatever else there is: so the same ones are
    held out again when images are added, but for those where the share ends. Of every class units are held out until
    the next one would lead away from its share. A class is on both sides where it can be; one that cannot stays in
    training, and a warning says so.

    Args:
        classes: Class `(N,)` of each row, of any type; all the same where there are no classes.
        units: Name `(N,)` of what each row belongs to and stays with: its group, or its image's content.
        fraction: Share in (0, 1).
        seed: Seed of the order.
        role: What the part is for: `validation` or `test`.

    Raises:
        ValueError: If the share is out of range, or nothing can be held out without taking all images of a class.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"data.{role}_fraction is {fraction}; it must be between 0 and 1.")
    names, places = np.unique(units, return_inverse=True)
    _, labels = np.unique(classes, return_inverse=True)
    held, lacking = _chosen(labels, places, hashed_order(names, seed), fraction)
    out = np.flatnonzero(held[places])
    if not len(out):
        raise ValueError(
            f"Nothing can be held out for {role} without taking all images of a class: there are {len(classes)} images "
            f"in {len(names)} groups or of their own. Bring more, or name a data.{role}_split."
        )
    if lacking:
        logger.warning("%d classes have all of their images in training: %s lacks them.", lacking, role)
    return np.flatnonzero(~held[places]), out


def hashed_order(names: np.ndarray, seed: int) -> np.ndarray:
    """The places of names in the order of a hash of the seed and each, which does not depend on the others."""
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest() for name in names.tolist()]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), np.int64)


def _chosen(labels: np.ndarray, places: np.ndarray, order: np.ndarray, fraction: float) -> tuple[np.ndarray, int]:
    """Which units `(U,)` are held out, and how many classes have none of their images there."""
    num_classes, num_units = int(labels.max()) + 1, len(order)
    ranks = np.empty(num_units, np.int64)
    ranks[order] = np.arange(num_units)
    pairs, sizes = np.unique(ranks[places] * num_classes + labels, return_counts=True)  # in the order of the hash
    unit_of, class_of = order[pairs // num_classes], pairs % num_classes
    content: list[list[tuple[int, int]]] = [[] for _ in range(num_units)]
    for unit, label, size in zip(unit_of.tolist(), class_of.tolist(), sizes.tolist(), strict=True):
        content[unit].append((label, size))
    members = _by_class(unit_of, class_of, num_classes)
    totals = np.bincount(labels, minlength=num_classes).tolist()
    goals = [min(max(1, round(fraction * total)), max(total - 1, 0)) for total in totals]
    taken, held = [0] * num_classes, np.zeros(num_units, bool)

    def take(unit: int, always: bool = False) -> bool | None:
        """Hold a unit out if that leads nearer to the shares; `None` if a class would be left with nothing."""
        if any(taken[label] + size >= totals[label] for label, size in content[unit]):
            return None
        before = sum(((taken[label] - goals[label]) / totals[label]) ** 2 for label, _ in content[unit])
        after = sum(((taken[label] + size - goals[label]) / totals[label]) ** 2 for label, size in content[unit])
        if after >= before and not always:
            return False
        held[unit] = True
        for label, size in content[unit]:
            taken[label] += size
        return True

    rare_first = sorted(range(num_classes), key=lambda label: len(members[label]))
    for label in rare_first:
        for unit in members[label]:
            if not held[unit] and take(unit) is False:
                break
    for label in rare_first:
        if not taken[label]:
            next((unit for unit in members[label] if take(unit, always=True)), None)
    return held, sum(not count for count in taken)


def _by_class(unit_of: np.ndarray, class_of: np.ndarray, num_classes: int) -> list[list[int]]:
    """The units that each class has images in, in order."""
    order = np.argsort(class_of, kind="stable")
    ends = np.cumsum(np.bincount(class_of, minlength=num_classes))[:-1]
    return [part.tolist() for part in np.split(unit_of[order], ends)]


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
