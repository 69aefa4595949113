"""Images that belong together, such as those of a patient, a module or a scene: never on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import datasets
import numpy as np
from datasets import Dataset
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

ALONE = "no group: row "  # before the number of an image of which nothing is said


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
        ValueError: If there is no such column, the pattern is no regular expression or does not match a path, or there
            are no paths.
    """
    if group_column is not None:
        if group_column not in dataset.column_names:
            raise ValueError(
                f"There is no column data.group_column={group_column!r}; there are {dataset.column_names}."
            )
        names = [group_name(value) for value in dataset[group_column]]
        return np.array([f"{ALONE}{row}" if name is None else name for row, name in enumerate(names)])
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


def group_name(value: Any) -> str | None:
    """The name of a group, however it is stored: 7, 7.0, `007` and ` 7 ` are one; `None` where nothing is said."""
    if value is None or value != value:
        return None
    text = str(value).strip()
    number = re.fullmatch(r"([+-]?)0*(\d+)(?:\.0+)?", text)
    return (number[1].replace("+", "") + number[2] if number else text) or None


def num_without_group(groups: np.ndarray) -> int:
    """How many images are a group of their own because nothing is said of theirs."""
    return int(np.char.startswith(groups, ALONE).sum())


def apart_in(split: str, groups: np.ndarray) -> np.ndarray:
    """Groups `(N,)` in which images of no group are told apart from those of other splits as well."""
    return np.char.add(groups, np.where(np.char.startswith(groups, ALONE), f" of {split}", ""))


def paths_of(dataset: Dataset, image_column: str) -> Iterator[str]:
    """The path of each image, or an empty text for one that has none."""
    column = dataset.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    for cell in column[image_column]:
        yield cell.get("path") or ""


def with_copies(groups: np.ndarray | None, content: np.ndarray) -> np.ndarray | None:
    """Groups `(N,)` in which equal images are together as well, and what they join; `None` if all are alone.

    Args:
        groups: What images belong to, as text; `None` if nothing is known.
        content: Name `(N,)` of the content of each image, equal for copies, as text.
    """
    if groups is None:
        return content if len(np.unique(content)) < len(content) else None
    return joined(groups, content)


def counted(names: np.ndarray) -> np.ndarray:
    """How many equal names came before each, `(N,)`."""
    _, places, counts = np.unique(names, return_inverse=True, return_counts=True)
    order = np.argsort(places, kind="stable")
    found = np.empty(len(names), np.int64)
    found[order] = np.arange(len(names)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found


def joined(*namings: np.ndarray, pairs: Collection[tuple[int, int]] = ()) -> np.ndarray:
    """Groups `(N,)` of what belongs together by any of several namings, or in pairs; each has the first name in it."""
    count, edges = len(namings[0]), [np.array(sorted(pairs), np.int64).reshape(-1, 2).T]
    for naming in namings:
        _, places = np.unique(naming, return_inverse=True)
        order = np.argsort(places, kind="stable")
        is_same = places[order][1:] == places[order][:-1]
        edges.append(np.stack([order[1:][is_same], order[:-1][is_same]]))
    ends = np.concatenate(edges, 1)
    graph = coo_matrix((np.ones(ends.shape[1], bool), ends), (count, count))
    parts = connected_components(graph, directed=False)[1]
    order = np.lexsort((namings[0], parts))
    _, firsts = np.unique(parts[order], return_index=True)
    return namings[0][order][firsts][parts]


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
