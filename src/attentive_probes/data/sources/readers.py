"""Readers of local data: each makes a dataset of an image column and a label column, and writes nothing beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value, concatenate_datasets, load_dataset

from attentive_probes.data.sources.find import CANONICAL, LABEL_COLUMNS, METADATA
from attentive_probes.data.sources.listing import Folder, with_readable_names
from attentive_probes.data.sources.read_tables import read_rows, typed
from attentive_probes.data.sources.table_paths import FilesOfTable
from attentive_probes.data.sources.webdataset import read_webdataset
from attentive_probes.files.disk_space import check_space

PATH_COLUMNS = (
    "file_name", "path", "image_path", "filepath", "filename", "file", "image", "img", "image_name", "img_name",
    "img_path", "image_file", "image_id", "img_id", "id",
)  # fmt: skip
STREAM_SHARDS = 1024  # of a folder that is streamed: what is shuffled before single images are


def read_class_folders(folders: Sequence[Folder], image_column: str, label_column: str) -> Dataset:
    """Images of class folders; the class is the folder right below, folders deeper down belong to it.

    Where several folders hold the classes, such as folds or centres, a column says in which of them an image lies:
    `fold` with its number if they are called so, else `folder`.

    Raises:
        ValueError: If there is no class folder.
    """
    pairs = sorted(
        ((part, folder.name) for folder in folders for part in folder.class_folders()), key=lambda pair: pair[0].name
    )
    names = sorted({part.name for part, _ in pairs})
    paths = [with_readable_names(part.images()) for part, _ in pairs]
    counts = [len(part) for part in paths]
    ids = np.repeat([names.index(part.name) for part, _ in pairs], counts)
    columns = {image_column: [path for part in paths for path in part], label_column: ids}
    features = {image_column: Value("string"), label_column: ClassLabel(names=names)}
    uppers = [upper for _, upper in pairs]
    if len(set(uppers)) > 1 and not all(upper.lower() in CANONICAL for upper in uppers):
        numbers = [re.search(r"\d+$", upper) for upper in uppers]
        are_folds = all(upper.lower().startswith(("fold", "cv")) for upper in uppers) and all(numbers)
        values = [int(found[0]) for found in numbers if found] if are_folds else uppers
        columns["fold" if are_folds else "folder"] = np.repeat(values, counts).tolist()
        features["fold" if are_folds else "folder"] = Value("int64" if are_folds else "string")
    dataset = Dataset.from_dict(columns, features=Features(features))
    return dataset.cast_column(image_column, Image())


def read_table(files: Sequence[Path], image_column: str) -> Dataset:
    """Tables of paths and labels: CSV, TSV or JSON Lines. Paths are relative to the table; what is empty stays empty.

    Columns are numbers where every entry is written as one, else text; see `read_tables.typed`.

    Raises:
        ValueError: If a table has no rows, no column of paths, or a line that cannot be read.
    """
    parts = [read_rows(path) for path in files]
    columns = {name for rows in parts for row in rows for name in row}
    paths = path_column(columns, image_column)
    if paths is None:
        raise ValueError(
            f"{files[0]} has the columns {sorted(columns)}; set image_column to the one with the paths of images."
        )
    content: dict[str, list[Any]] = {name: [] for name in sorted(columns)}
    for path, rows in zip(files, parts, strict=True):
        images = FilesOfTable(path)
        for number, row in enumerate(rows, start=1):
            for name, values in content.items():
                values.append(row.get(name))
            content[paths][-1] = _resolved(images, row.get(paths), number)
    content = {name: values if name == paths else typed(values) for name, values in content.items()}
    dataset = Dataset.from_dict(content)
    dataset = dataset.rename_column(paths, image_column) if paths != image_column else dataset
    return dataset.cast_column(image_column, Image())


def read_metadata(folders: Sequence[Path], image_column: str, label_column: str) -> Dataset:
    """Images that a `metadata.csv` or `metadata.jsonl` describes; without a label there, their class folders do.

    Raises:
        ValueError: If there is no such file, or an image that it names is not there.
    """
    tables = [table for folder in folders if (table := _metadata_of(folder)) is not None]
    if not tables:
        raise ValueError(f"{folders[0]} has no {' or '.join(METADATA)}.")
    dataset = read_table(tables, image_column)
    if label_column in dataset.column_names:
        return dataset
    paths = [cell["path"] for cell in dataset.cast_column(image_column, Image(decode=False))[image_column]]
    classes = [next((Path(path).relative_to(f).parts[0] for f in folders if Path(path).is_relative_to(f)), "")
               for path in paths]  # fmt: skip
    return dataset.add_column(label_column, classes)


def read_parquet(files: Sequence[Path], image_column: str, label_column: str, streaming: bool) -> Any:
    """Parquet shards; class names that differ from shard to shard are told apart by name.

    Raises:
        ValueError: If shards of a stream differ in their class names.
    """
    groups: dict[tuple[str, ...] | None, list[Path]] = {}
    for path in files:
        groups.setdefault(_stored_names(path, label_column), []).append(path)
    read = [_open_parquet(paths, streaming) for paths in groups.values()]
    if len(read) == 1:
        dataset = read[0]
    elif streaming:
        raise ValueError(f"The shards have class names in {len(groups)} different orders; read them without streaming.")
    else:
        parts = []
        for names, part in zip(groups, read, strict=True):
            labels = part.with_format("numpy")[label_column][:]
            texts = [names[label] if names and label >= 0 else None if names else str(label) for label in labels]
            parts.append(part.remove_columns(label_column).add_column(label_column, texts))
        dataset = concatenate_datasets(parts)
    feature = (dataset.features or {}).get(image_column)
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string") and not streaming:
        resolved = [_beside(files[0], path) for path in dataset[image_column]]
        dataset = dataset.remove_columns(image_column).add_column(image_column, resolved)
    return dataset


def unpacked(archive: Path) -> Path:
    """The folder that a zip was unpacked to, in the cache of `datasets`; unpacked now if it was not yet.

    Raises:
        ValueError: If it is no zip, or what is in it does not fit on the disk.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "unpacked" / _hash_of(archive)
    if not folder.exists():
        if problem := cache_problem():
            raise ValueError(f"A zip is unpacked before it is read, but {problem}.")
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(archive) as content:
                check_space({partial.parent: sum(entry.file_size for entry in content.infolist())})
                content.extractall(partial)
            os.replace(partial, folder)
        except OSError:
            if not folder.exists():  # else another run was faster
                raise
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive} is no zip: {error}.") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    inside = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and Folder.of(inside[0]).class_folders() else folder


def cache_problem() -> str:
    """What to do about the cache of `datasets`, in words; nothing if it can be written to."""
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError:
        pass
    return (
        f"the cache of `datasets`, {folder}, cannot be written to: set HF_HOME (or HF_DATASETS_CACHE) to a folder that "
        "can be"
    )


READERS: dict[str, Callable[..., Any]] = {  # of folders or files of a split
    "class folders": lambda paths, image, label, streaming: read_class_folders(paths, image, label),
    "metadata": lambda paths, image, label, streaming: read_metadata([Path(p.path) for p in paths], image, label),
    "table": lambda paths, image, label, streaming: read_table(paths, image),
    "parquet": read_parquet,
    "webdataset": read_webdataset,
}


def read(kind: str, paths: Sequence[Path | Folder], image_column: str, label_column: str, streaming: bool) -> Any:
    """The data of one split, held or as a stream.

    Raises:
        ValueError: As the readers.
    """
    dataset = READERS[kind](paths, image_column, label_column, streaming)
    if streaming and not isinstance(dataset, IterableDataset):
        dataset = dataset.to_iterable_dataset(num_shards=max(1, min(STREAM_SHARDS, len(dataset))))
    return dataset


def path_column(columns: Collection[str], image_column: str = "image") -> str | None:
    """The column with the paths of images: the one that is asked for, or the first with a usual name."""
    if image_column in columns:
        return image_column
    known = {name.casefold(): name for name in columns}
    return next((known[name] for name in PATH_COLUMNS if name in known), None)


def num_listed(table: Path) -> int:
    """How many images a table says more about than their folders do: paths of files that are there, and labels."""
    try:
        rows = read_rows(table)
        column = path_column(rows[0])
        has_labels = len(rows[0]) == 2 or any(name.casefold() in LABEL_COLUMNS for name in rows[0])
        images = FilesOfTable(table)
        is_list = column is not None and has_labels and all(images.find(str(row[column])) for row in rows[:5])
        return len(rows) if is_list else 0
    except (ValueError, OSError, KeyError):
        return 0


def _resolved(images: FilesOfTable, path: Any, number: int) -> str:
    if path is None or not str(path).strip():
        raise ValueError(f"Row {number} of {images.table} names no image.")
    text = str(path)
    found = images.find(text)
    if found is not None:
        return found
    cause = ""
    if text.startswith("data:") or len(text) > 300:
        text, cause = f"{text[:30]}...", ": it looks like the image itself, as text; write images to files"
    raise ValueError(f"Row {number} of {images.table} names the image {text!r}, which is not there{cause}.")


def _beside(table: Path, path: str) -> str:
    """A path of a table: relative to its folder, or as it is."""
    if path is None or "://" in path or Path(path).is_absolute():
        return path
    near = table.parent / path
    return str(near if near.exists() or not Path(path).exists() else Path(path).resolve())


def _metadata_of(folder: Path) -> Path | None:
    places: Iterable[Path] = (folder / name for name in METADATA)
    return next((path for path in places if path.is_file()), None)


def _stored_names(path: Path, label_column: str) -> tuple[str, ...] | None:
    """Class names of the label column as `datasets` stored them in a Parquet file."""
    stored = (pq.read_schema(path).metadata or {}).get(b"huggingface")
    if stored is None:
        return None
    feature = json.loads(stored).get("info", {}).get("features", {}).get(label_column, {})
    return tuple(feature["names"]) if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None


def _hash_of(path: Path) -> str:
    """A name for what a file holds now."""
    status = path.stat()
    text = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _open_parquet(files: Sequence[Path], streaming: bool) -> Any:
    is_odd = any("::" in str(path) for path in files)  # what datasets takes for a chain of addresses
    if is_odd or cache_problem():  # held in memory
        return concatenate_datasets([Dataset(pq.read_table(path, memory_map=True)) for path in files])
    return load_dataset("parquet", data_files=[_literal(path) for path in files], split="train", streaming=streaming)


def _literal(path: Path) -> str:
    """A path in which no character is a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
