"""Somebody's data, looked at once: which columns and splits they have, and what kind of labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, get_dataset_split_names

from attentive_probes.assets import EMBEDDED_PREFIX, embedded_path
from attentive_probes.checks import unknown_name
from attentive_probes.data.load import by_column, load_split, open_local, root_cause
from attentive_probes.data.sources.find import CANONICAL, LABEL_COLUMNS
from attentive_probes.data.sources.split_column import find_fold_column, find_split_column
from attentive_probes.data.sources.tag_columns import flag_columns, with_label_column
from attentive_probes.problems.kind_of_labels import KINDS, kind_of_labels
from attentive_probes.problems.label_columns import Labels

logger = logging.getLogger(__name__)
ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class FoundData:
    """What some data were taken for.

    Args:
        train: The training rows.
        block: The data block of a recipe: names of splits and columns, and the kind of problem, where they are not the
            usual ones.
        problem_type: Kind of problem, as transformers writes it.
    """

    train: Dataset
    block: dict[str, Any]
    problem_type: str


def find_data(source: str, problem: str | None, asked: Mapping[str, Any]) -> FoundData:
    """Look at some data, and say with which block of a recipe they are read.

    Args:
        source: Anything that `data.dataset` takes.
        problem: `classes`, `tags` or `numbers`; `None` finds it out.
        asked: Keys of the data block that are set already; `images` is one of them.

    Raises:
        ValueError: If the data cannot be read, have no training split or no column of labels, or a kind is unknown.
    """
    if problem is not None and problem not in KINDS:
        raise ValueError(unknown_name("--problem", problem, KINDS))
    images = dict(asked.get("images") or {})
    names = split_names(source, asked.get("name"), asked.get("class_level"))
    options = {key: asked[key] for key in ("name", "revision", "class_level") if asked.get(key) is not None}
    columns = {key: images.get(key, usual) for key, usual in (("image_column", "image"), ("label_column", "label"))}
    train = load_split(source, names["train"], **options, **columns)
    if not isinstance(train, Dataset):
        raise ValueError(f"{source!r} is a stream; write a recipe for it.")
    label_column = images.get("label_column") or find_label_column(train, columns["image_column"])
    train = with_label_column(train, label_column)
    others = (columns["image_column"], label_column, *label_column.split(","))
    block: dict[str, Any] = {}
    if len(names) == 1 and (column := asked.get("split_column") or find_split_column(train, others)):
        splits = by_column(Path(source), train, column).splits
        block["split_column"], train = column, splits["train"]
        names = {role: role for role in ROLES if role in splits}
    others = (*others, block.get("split_column", ""))
    if (fold := asked.get("fold_column") or find_fold_column(train, others)) is not None:
        block["fold_column"] = fold
    kind = kind_of_labels(Labels.of(train, label_column))
    problem_type = asked.get("problem_type") or (KINDS[problem] if problem else kind.problem_type)
    if kind.doubt and problem is None and "problem_type" not in asked:
        logger.warning("%s", kind.doubt)
    if problem_type == KINDS["tags"] and kind.separator is not None:
        images.setdefault("label_separator", kind.separator)
    block |= {f"{role}_split": names[role] for role in ROLES if role in names}
    block["images"] = {**images, **({"label_column": label_column} if label_column != "label" else {})}
    if problem_type != KINDS["classes"]:
        block["problem_type"] = problem_type
    return FoundData(train, block, problem_type)


def split_names(source: str, name: str | None = None, class_level: int | None = None) -> dict[str, str]:
    """Role -> the name of the split of some data that has it: `train`, and where there are, `validation` and `test`.

    Raises:
        ValueError: If there is no such data, or none to train on.
    """
    path = embedded_path(source) if source.startswith(EMBEDDED_PREFIX) else Path(source).expanduser()
    try:
        found = (
            list(open_local(path, frozenset(), class_level).splits)
            if path.exists()
            else get_dataset_split_names(source, name)
        )
    except Exception as error:  # whatever datasets or a file system raise
        raise ValueError(f"Cannot read {source!r}: {root_cause(error)}") from error
    roles: dict[str, str] = {}
    for split in found:
        roles.setdefault(CANONICAL.get(split.lower(), split), split)
    if "train" not in roles and len(found) == 1:
        roles["train"] = found[0]
    if "train" not in roles:
        raise ValueError(f"{source!r} has the splits {found}, none to train on; write a recipe that names one.")
    return {role: split for role, split in roles.items() if role in ROLES}


def find_label_column(train: Dataset, image_column: str) -> str:
    """The column of labels: the one that is called so, the only one that is left, or all columns of zeros and ones.

    Raises:
        ValueError: If it cannot be told.
    """
    known = {name.strip().casefold(): name for name in train.column_names if name != image_column}
    named = [known[name] for name in LABEL_COLUMNS if name in known]
    if named and (len(named) == 1 or named[0] == "label"):
        return named[0]
    taken = {image_column, find_split_column(train) or "", find_fold_column(train) or ""}
    left = [name for name in train.column_names if name not in taken]
    if len(left) == 1:
        return left[0]
    if not named and len(flags := flag_columns(train, tuple(taken))) > 1:
        return ",".join(flags)
    raise ValueError(
        f"There is no column 'label' of labels; there are {train.column_names}. Name it (--label-column NAME), or "
        "several of zeros and ones, one per tag (--label-column a,b,c)."
    )
