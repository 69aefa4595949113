"""What lies in a folder: which files are images, which folders are classes and splits, and what is left aside."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from attentive_probes.data.decode import image_endings

SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
CANONICAL = {word: split for split, words in SYNONYMS.items() for word in words}
# What file managers, archivers and notebooks leave behind; whatever begins with a dot is hidden anyway.
LEFTOVERS = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "__pycache__", "$recycle.bin",
    "system volume information", "lost+found", "lost.dir",
}  # fmt: skip
METADATA = ("metadata.csv", "metadata.jsonl")
SHARDS = {".parquet": "parquet", ".tar": "webdataset", ".zip": "zip"}
TABLES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Layout:
    """What a folder was taken for.

    Args:
        kind: `class folders`, `metadata`, `parquet`, `webdataset`, `zip` or `table`.
        splits: Name of each split -> its folder, or its files.
        aside: What was left aside, in words.
    """

    kind: str
    splits: dict[str, tuple[Path, ...]]
    aside: tuple[str, ...] = ()


def children(folder: Path) -> list[Path]:
    """What lies directly in a folder, in order of name, without hidden files and leftovers."""
    names = (name for name in os.listdir(folder) if not name.startswith((".", "~$")) and name.lower() not in LEFTOVERS)
    return [folder / name for name in sorted(names)]


def walk(folder: Path, above: frozenset[Path] | None = None) -> Iterator[Path]:
    """All files below a folder, in order; links are followed, but none to a folder that it lies in."""
    here = folder.resolve()
    above = frozenset(here.parents) if above is None else above
    if here in above:
        return
    for path in children(folder):
        if path.is_dir():
            yield from walk(path, above | {here})
        elif path.is_file():
            yield path


def is_image(path: Path) -> bool:
    """Whether a file has the ending of an image."""
    return path.suffix.lower() in image_endings()


def images_below(folder: Path) -> list[Path]:
    """All images below a folder, in order."""
    return [path for path in walk(folder) if is_image(path)]


def find_layout(root: Path, wanted: frozenset[str] = frozenset()) -> Layout:
    """Find out what kind of data a folder holds, and its splits.

    The kind of which there are most files wins: a stray archive among images changes nothing.

    Args:
        root: The folder.
        wanted: Names of splits that are asked for, which folders and files of any name may be.

    Raises:
        ValueError: If it holds no data, or it cannot be told whether its folders are classes or splits.
    """
    files = list(walk(root))
    images = [path for path in files if is_image(path)]
    by_kind: dict[str, list[Path]] = {}
    for path in files:
        if (ending := path.suffix.lower()) in SHARDS:
            by_kind.setdefault(SHARDS[ending], []).append(path)
    most = max(by_kind, key=lambda kind: len(by_kind[kind])) if by_kind else None
    tables = [path for path in files if path.suffix.lower() in TABLES and path.name not in METADATA]
    listed = [path for path in tables if path.parent == root and split_in(path.stem, wanted, whole=False)]
    if listed and len(class_folders(root)) < 2:  # train.csv beside a folder of images
        layout = Layout("table", by_split(root, listed, wanted))
    elif most is not None and len(by_kind[most]) >= len(images):
        layout = Layout(most, by_split(root, by_kind[most], wanted))
    elif images:
        layout = _image_layout(root, wanted)
    elif tables:
        layout = Layout("table", by_split(root, tables, wanted))
    else:
        endings = ", ".join(sorted({path.suffix or "none" for path in files})) or "no file at all"
        raise ValueError(
            f"{str(root)!r} holds no images, Parquet files, WebDataset shards or tables; its files end in: {endings}."
        )
    return replace(layout, aside=_aside(files, layout))


def by_split(root: Path, files: list[Path], wanted: frozenset[str] = frozenset()) -> dict[str, tuple[Path, ...]]:
    """Name of each split -> its files, by the folders they lie in below the root, or by their names.

    Files that name no split are all of `train` where none does, and left aside where others do.
    """
    found: dict[str, list[Path]] = {}
    unnamed = []
    for path in files:
        folders = path.relative_to(root).parts[:-1][::-1]
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


def class_folders(folder: Path) -> list[Path]:
    """The folders right below a folder that hold an image, however deep."""
    return [path for path in children(folder) if path.is_dir() and any(map(is_image, walk(path)))]


def _image_layout(root: Path, wanted: frozenset[str]) -> Layout:
    folders = class_folders(root)
    splits = {path: name for path in folders if (name := split_in(path.name, wanted, whole=True))}
    others = [path for path in folders if path not in splits]
    if any((path / name).exists() for path in (root, *splits) for name in METADATA):
        return Layout("metadata", _merged(splits) or {"train": (root,)})
    deep = {path: split for path, split in splits.items() if class_folders(path)}
    also_deep = [path for path in others if deep and class_folders(path)]
    if also_deep:
        raise ValueError(
            f"It cannot be told whether the folders of {str(root)!r} are classes or splits: {next(iter(deep)).name!r} "
            f"is named like a split, {also_deep[0].name!r} is not, and both hold folders of images. Put all classes "
            "into one folder 'train', or name all splits."
        )
    if deep:
        return Layout("class folders", _merged(deep))
    if not others:
        where = " and ".join(f"{path.name}/" for path in splits) or repr(str(root))
        raise ValueError(f"{where} holds images, but no class folders and no metadata.csv to say what they show.")
    return Layout("class folders", {"train": (root,)})


def _merged(folders: dict[Path, str]) -> dict[str, tuple[Path, ...]]:
    names = dict.fromkeys(folders.values())
    return {name: tuple(path for path, split in folders.items() if split == name) for name in names}


def _aside(files: list[Path], layout: Layout) -> tuple[str, ...]:
    """What is left aside, a few words per ending."""
    taken = {path for paths in layout.splits.values() for path in paths}
    if layout.kind in ("class folders", "metadata"):
        inside = (class_folders(folder) if layout.kind == "class folders" else [folder] for folder in taken)
        taken = {path for folders in inside for folder in folders for path in walk(folder) if is_image(path)}
    left = [path for path in files if path not in taken and path.name not in METADATA]
    counts = Counter(path.suffix.lower() or "no ending" for path in left)
    example = {path.suffix.lower() or "no ending": path.name for path in reversed(left)}
    return tuple(f"{count} {ending} ({example[ending]})" for ending, count in counts.most_common(3))
