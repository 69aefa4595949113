"""What lies in a folder: which files are images, which folders are classes and splits, and what is left aside."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from attentive_probes.data.pixels.decode import image_endings
from attentive_probes.data.sources.listing import Folder, ending_of

SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
CANONICAL = {word: split for split, words in SYNONYMS.items() for word in words}
METADATA = ("metadata.csv", "metadata.jsonl")
SHARDS = {".parquet": "parquet", ".tar": "webdataset", ".zip": "zip"}
TABLES = (".csv", ".tsv", ".jsonl")
# What columns of labels are called, where none is called `label`.
LABEL_COLUMNS = (
    "label", "labels", "target", "targets", "class", "classes", "class_name", "category", "categories", "diagnosis",
    "species", "breed", "tag", "tags", "y", "dx", "variety", "condition",
)  # fmt: skip
# Folders above the classes: parts of the data, whatever their number.
ABOVE = re.compile(
    r"(images?|imgs?|data)?[-_ ]*(fold|cv|part|batch|chunk|shard|split|set|cent(er|re)|site|hospital|clinic|scanner|"
    r"year|session|run|day|week|images?|imgs?)[-_ ]*(\d+|[a-z])?|(19|20)\d\d",
    re.IGNORECASE,
)
MASKS = ("mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "ground_truth", "gt")


@dataclass(frozen=True)
class Layout:
    """What a folder was taken for.

    Args:
        kind: `class folders`, `metadata`, `parquet`, `webdataset`, `zip` or `table`.
        splits: Name of each split -> its folders, or its files.
        aside: What was left aside, in words.
    """

    kind: str
    splits: Mapping[str, tuple[Path | Folder, ...]]
    aside: tuple[str, ...] = ()


def find_layout(
    root: Folder,
    wanted: frozenset[str] = frozenset(),
    num_listed: Callable[[Path], int] = lambda table: 0,
    class_level: int | None = None,
) -> Layout:
    """Find out what kind of data a folder holds, and its splits.

    The kind of which there are most files wins: a stray archive among images changes nothing.

    Args:
        root: The folder.
        wanted: Names of splits that are asked for, which folders and files of any name may be.
        num_listed: How many images that are there a table says labels of.
        class_level: Which folders are the classes where two levels could be: 1 the upper ones, 2 those in them.

    Raises:
        ValueError: If it holds no data, or it cannot be told whether its folders are classes or splits.
    """
    files, images = list(root.files()), list(root.images())
    by_kind: dict[str, list[Path]] = {}
    for path in files:
        if (ending := ending_of(path)) in SHARDS:
            by_kind.setdefault(SHARDS[ending], []).append(Path(path))
    most = max(by_kind, key=lambda kind: len(by_kind[kind])) if by_kind else None
    tables = [Path(path) for path in files if ending_of(path) in TABLES and Path(path).name not in METADATA]
    at_root = [path for path in tables if str(path.parent) == root.path]
    named = [path for path in at_root if split_in(path.stem, wanted, whole=False)]
    listed = named or at_root
    # A list of findings or predictions that lies about names some of the images; what says their labels names most.
    says_labels = bool(listed) and sum(map(num_listed, listed)) * 3 >= len(images)
    if images and (says_labels or (named and len(root.class_folders()) < 2)):
        layout = Layout("table", by_split(root, listed, wanted))  # such as train.csv beside a folder of images
    elif most is not None and len(by_kind[most]) >= len(images):
        layout = Layout(most, by_split(root, by_kind[most], wanted))
    elif images:
        layout = _image_layout(root, wanted, class_level)
    elif tables:
        layout = Layout("table", by_split(root, tables, wanted))
    else:
        endings = ", ".join(sorted({Path(path).suffix or "none" for path in files})) or "no file at all"
        raise ValueError(
            f"{root.path!r} holds no images, Parquet files, WebDataset shards or tables; its files end in: {endings}."
        )
    return replace(layout, aside=_aside(files, layout))


def by_split(root: Folder, files: list[Path], wanted: frozenset[str] = frozenset()) -> dict[str, tuple[Path, ...]]:
    """Name of each split -> its files, by the folders they lie in below the root, or by their names.

    Files that name no split are all of `train` where none does, and left aside where others do.
    """
    found: dict[str, list[Path]] = {}
    unnamed = []
    for path in files:
        folders = path.relative_to(root.path).parts[:-1][::-1]
        names = (split_in(name, wanted, whole=True) for name in folders)
        split = next((name for name in names if name), None) or split_in(path.stem, wanted, whole=False)
        if split is None:
            unnamed.append(path)
        else:
            found.setdefault(split, []).append(path)
    if not found:
        return {"train": tuple(unnamed)}
    return {split: tuple(paths) for split, paths in found.items()}


def split_in(name: str, wanted: frozenset[str], whole: bool) -> str | None:
    """The split that a folder or file is named after: its whole name, or the first word of it that is one."""
    words = [name] if whole else "".join(letter if letter.isalnum() else " " for letter in name).split()
    for word in [name, *words]:
        if word in wanted or word.lower() in CANONICAL:
            return word if word in wanted else CANONICAL[word.lower()]
    return None


def _image_layout(root: Folder, wanted: frozenset[str], class_level: int | None) -> Layout:
    folders = root.class_folders()
    splits = {folder.path: name for folder in folders if (name := split_in(folder.name, wanted, whole=True))}
    named = [folder for folder in folders if folder.path in splits]
    others = [folder for folder in folders if folder.path not in splits]
    if any(folder.has(name) for folder in (root, *named) for name in METADATA):
        return Layout("metadata", _merged(named, splits) or {"train": (root,)})
    deep = [folder for folder in named if folder.class_folders()]
    also_deep = [folder for folder in others if deep and folder.class_folders()]
    if also_deep:
        raise ValueError(
            f"It cannot be told whether the folders of {root.path!r} are classes or splits: {deep[0].name!r} "
            f"is named like a split, {also_deep[0].name!r} is not, and both hold folders of images. Put all classes "
            "into one folder 'train', or name all splits."
        )
    if deep:
        return Layout("class folders", _merged(deep, splits))
    if others and class_level != 1 and (classes := _below(root, folders, class_level)):
        return Layout("class folders", {"train": classes})
    if not others:
        where = " and ".join(f"{folder.name}/" for folder in named) or repr(root.path)
        raise ValueError(f"{where} holds images, but no class folders and no metadata.csv to say what they show.")
    return Layout("class folders", {"train": (root,)})


def _below(root: Folder, folders: list[Folder], class_level: int | None) -> tuple[Folder, ...]:
    """The folders in which the classes lie, if these are not the folders themselves; nothing if they are.

    Raises:
        ValueError: If both could be.
    """
    if any(has_images(folder) for folder in folders):
        return ()  # images lie right in them: these are the classes
    inside = [{part.name for part in folder.class_folders()} for folder in folders]
    shared = set.intersection(*inside)
    pictures = [folder for folder in folders if folder.name.lower() not in MASKS]
    if len(folders) == 1 and len(shared) > 1:
        return tuple(folders)  # one folder around all of them
    if len(shared) < 2 or (class_level is None and len(shared) < 0.8 * max(map(len, inside))):
        return ()
    if len(pictures) < len(folders):
        return tuple(pictures)
    if class_level == 2 or all(ABOVE.fullmatch(folder.name) for folder in folders):
        return tuple(folders)
    uppers, lowers = (", ".join(sorted(names)[:3]) for names in ({folder.name for folder in folders}, shared))
    raise ValueError(
        f"It cannot be told what the classes of {root.path!r} are: its folders ({uppers}), or those in each of them "
        f"({lowers}). Say data.class_level=1 for the upper ones, or 2 for those in them."
    )


def has_images(folder: Folder) -> bool:
    """Whether images lie right in a folder, not only deeper down."""
    endings = image_endings()
    return any(below is None and ending_of(name) in endings for name, below in folder.entries)


def _merged(folders: list[Folder], splits: dict[str, str]) -> dict[str, tuple[Folder, ...]]:
    names = dict.fromkeys(splits[folder.path] for folder in folders)
    return {name: tuple(folder for folder in folders if splits[folder.path] == name) for name in names}


def _aside(files: list[str], layout: Layout) -> tuple[str, ...]:
    """What is left aside, a few words per ending."""
    taken: set[str] = set()
    for source in (source for sources in layout.splits.values() for source in sources):
        if isinstance(source, Folder):
            inside = source.class_folders() if layout.kind == "class folders" else [source]
            taken.update(path for folder in inside for path in folder.images())
        else:
            taken.add(str(source))
    left = [path for path in files if path not in taken and os.path.basename(path) not in METADATA]
    if layout.kind == "table":  # which names the images that it means
        left = [path for path in left if ending_of(path) not in image_endings()]
    counts = Counter(ending_of(path) or "no ending" for path in left)
    example = {ending_of(path) or "no ending": os.path.basename(path) for path in reversed(left)}
    return tuple(f"{count} {ending} ({example[ending]})" for ending, count in counts.most_common(3))
