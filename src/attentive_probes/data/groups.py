"""Images that belong together, such as those of a patient, a module or a scene: never on both sides of a split."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping

import datasets
import numpy as np
from datasets import Dataset

from attentive_probes.data.hold_out import rows_by_class

logger = logging.getLogger(__name__)
ALL = 1 - 1e-9  # of the images of a class


def groups_of(
    dataset: Dataset, image_column: str, group_column: str | None, group_pattern: str | None
) -> np.ndarray | None:
    """The group `(N,)` of each image, as text; `None` if nothing says what belongs together.

    Args:
        dataset: The images.
        image_column: Column of images.
        group_column: Column of groups.
        group_pattern: Regular expression on the paths of the files; its first group, or else what it matches, is the
            group of an image.

    Raises:
        ValueError: If there is no such column, the pattern is none, it does not match a path, or there are no paths.
    """
    if group_column is not None:
        if group_column not in dataset.column_names:
            raise ValueError(
                f"There is no column data.group_column={group_column!r}; there are {dataset.column_names}."
            )
        return np.array([str(value) for value in dataset[group_column]])
    if group_pattern is None:
        return None
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        raise ValueError(f"data.group_pattern={group_pattern!r} is no regular expression: {error}.") from error
    found = []
    for row, path in enumerate(paths_of(dataset, image_column)):
        match = pattern.search(path)
        if match is None:
            where = f"the path {path!r}" if path else "an image without a path"
            raise ValueError(f"data.group_pattern={group_pattern!r} does not match {where} (row {row}).")
        found.append(match[1] if match.groups() else match[0])
    return np.array(found)


def paths_of(dataset: Dataset, image_column: str) -> Iterator[str]:
    """The path of each image, or an empty text for one that has none."""
    column = dataset.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    for cell in column[image_column]:
        yield cell.get("path") or ""


def hold_out_groups(
    classes: np.ndarray, groups: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stay and rows that are held out: whole groups, so that of every class about the share is held out.

    Groups are looked at in a random order, large ones first; one is held out if that brings the numbers of held images
    by class nearer to their shares, relative to the sizes of the classes, and leaves some of each class. A class that
    is left without any then gets its smallest group where that can be; a warning counts the others.

    Args:
        classes: Class `(N,)` of each row; all the same where there are no classes.
        groups: Group `(N,)` of each row.
        fraction: Share in (0, 1).
        seed: Seed of the draw.

    Raises:
        ValueError: If there are fewer than two groups, or every one holds all images of some class.
    """
    _, labels = np.unique(classes, return_inverse=True)
    members = rows_by_class(groups)
    if len(members) < 2:
        raise ValueError(f"There is {len(members)} group of images; two sides need two at least.")
    counts = np.stack([np.bincount(labels[rows], minlength=labels.max() + 1) for rows in members]).astype(float)
    shares = counts / counts.sum(0)
    order = np.random.default_rng(seed).permutation(len(members))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    held, taken = np.zeros(len(members), bool), np.zeros(counts.shape[1])
    for group in order:
        after = taken + shares[group]
        is_nearer = np.square(after - fraction).sum() < np.square(taken - fraction).sum()
        if is_nearer and after.max() < ALL:
            held[group], taken = True, after
    for label in np.flatnonzero(taken == 0):
        having = [group for group in order[::-1] if counts[group, label] and (taken + shares[group]).max() < ALL]
        if having and taken[label] == 0:
            held[having[0]], taken = True, taken + shares[having[0]]
    if not held.any():
        raise ValueError(
            "No group can be held out without taking all images of a class; name a split of its own, or bring more "
            "groups."
        )
    if singles := int((taken == 0).sum()):
        logger.warning("%d classes have all of their images in training: what is held out lacks them.", singles)
    out = np.sort(np.concatenate([members[group] for group in np.flatnonzero(held)]))
    return np.setdiff1d(np.arange(len(classes)), out), out


def check_groups_apart(groups: Mapping[str, np.ndarray]) -> None:
    """Check that no group is in two splits.

    Args:
        groups: Name of each split -> the group of each of its images.

    Raises:
        ValueError: If one is; the text names it.
    """
    homes: dict[str, str] = {}
    for split, of_split in groups.items():
        for group in np.unique(of_split).tolist():
            if homes.setdefault(group, split) != split:
                raise ValueError(
                    f"The group {group!r} is in the {homes[group]} split and in the {split} split; what is learned of "
                    "it in one is known in the other. Name other splits, or hold a part out of one "
                    "(data.test_fraction)."
                )
