"""The one door for data: a split by name, wherever it lies and in whatever form."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, ReadInstruction, load_dataset, load_from_disk

from attentive_probes.assets import EMBEDDED_PREFIX, embedded_path
from attentive_probes.checks import unknown_name
from attentive_probes.data.sources.find import CANONICAL, SHARDS, TABLES, find_layout, split_in
from attentive_probes.data.sources.listing import Folder
from attentive_probes.data.sources.readers import cache_problem, num_listed, read, unpacked
from attentive_probes.data.sources.split_column import split_names_in
from attentive_probes.data.sources.tag_columns import with_label_column

logger = logging.getLogger(__name__)
LARGE = 10**9  # rows, of a data set whose slices are compared before it is read
FILES = {**SHARDS, **dict.fromkeys(TABLES, "table")}


AnyData: TypeAlias = Union[Dataset, IterableDataset]  # noqa: UP007 (datasets are untyped)


def load_split(source: str, split: str, **options: Any) -> AnyData:
    """Load one split of a dataset; arguments as in `load_named`.

    Raises:
        ValueError: As `load_named`.
    """
    return load_named(source, [split], **options)[split]


def load_named(
    source: str,
    splits: Sequence[str],
    *,
    name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    image_column: str = "image",
    label_column: str = "label",
    split_column: str | None = None,
    class_level: int | None = None,
) -> dict[str, AnyData]:
    """Load splits of a dataset, which is looked at once; `docs/data.md` shows all that can be brought.

    Args:
        source: `embedded:<name>`; a folder of class folders, of images with a `metadata.csv`, of Parquet files or
            WebDataset shards, or written by `save_to_disk`; a Parquet file, zip, CSV, TSV or JSON Lines; or a Hub id.
        splits: Names of the splits, by which folders of any name are known to be splits; slices such as `train[:90%]`
            work for everything that is not streamed.
        name: Configuration of a Hub dataset.
        revision: Branch, tag or commit of a Hub dataset.
        streaming: Whether to read on the fly instead of preparing a copy.
        image_column: What the column of images is, or will be, called.
        label_column: What the column of labels is, or will be, called; several columns of zeros and ones, `sun,sea`,
            become one of lists.
        split_column: Column that says row by row which split it is in, where the data have one split.
        class_level: Which folders are the classes where two levels could be: 1 the upper ones, 2 those in them.

    Returns:
        Name of each split -> its data.

    Raises:
        ValueError: If there is no such dataset or split, or it cannot be read; one sentence with the cause.
    """
    path = embedded_path(source) if source.startswith(EMBEDDED_PREFIX) else Path(source).expanduser()
    found, local = dict[str, AnyData](), None
    columns = (image_column, label_column)
    for split in dict.fromkeys(splits):
        try:
            if split_column is not None and streaming:
                raise ValueError("a stream is not sorted by data.split_column; set streaming to false.")
            if not path.exists() and _is_local(source):
                raise ValueError("there is no such file or folder.")
            if not path.exists() and split_column is None:
                data = load_dataset(source, name, revision=revision, split=split, streaming=streaming)
                found[split] = with_label_column(data, label_column)
                continue
            if local is None and split_column is not None:
                only = _only_split(path, columns, class_level) if path.exists() else None
                whole = load_dataset(source, name, revision=revision, split="train") if only is None else only
                local = by_column(path, whole, split_column)
            elif local is None:
                wanted = [part.splitname for name in splits for part in _instructions(name)]
                local = open_local(path, frozenset(wanted), class_level)
            data = local.load(split, _instructions(split), image_column, label_column, streaming)
            found[split] = with_label_column(data, label_column)
        except Exception as error:  # whatever datasets, PyArrow or a file system raise
            nowhere = "" if path.exists() or _is_local(source) else "there is no such folder here; on the Hub: "
            cause = root_cause(error)
            if (problem := cache_problem()) and problem not in cause:
                cause = f"{cause}; {problem}"
            raise ValueError(f"Cannot load the split {split!r} of {source!r}: {nowhere}{cause}") from error
    return found


def _only_split(path: Path, columns: tuple[str, str], class_level: int | None) -> Dataset:
    """All rows of data that have one split."""
    local = open_local(path, frozenset(), class_level)
    if len(local.splits) != 1:
        raise ValueError(f"it has the splits {', '.join(local.splits)} already; leave data.split_column out.")
    name = next(iter(local.splits))
    return local.load(name, _instructions(name), *columns, streaming=False)


def by_column(path: Path, whole: Dataset, column: str) -> LocalData:
    """The splits that a column of some data says, row by row.

    Raises:
        ValueError: If there is no such column.
    """
    names = split_names_in(whole, column)
    rows = {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist()) if name != ""}
    aside = (f"{int((names == '').sum())} rows without a split",) if (names == "").any() else ()
    splits = {name: whole.select(places) for name, places in rows.items()}
    return LocalData(path, f"splits by the column {column!r}", splits, aside)


def _is_local(source: str) -> bool:
    """Whether a name can only be that of a file or folder, not of a repository on the Hub."""
    return source.startswith(("/", ".", "~", EMBEDDED_PREFIX)) or source.count("/") > 1 or Path(source).suffix in FILES


def root_cause(error: BaseException) -> str:
    """What went wrong in the first place, as one line: our own words for it where there are any."""
    while type(error) is not ValueError and (error.__cause__ or error.__context__) is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]  # one of them is there
    text = " ".join(str(error).split())
    return f"{text[:300]}{'...' if len(text) > 300 else ''}" or type(error).__name__


@dataclass(frozen=True)
class LocalData:
    """A folder or file of data, and its splits.

    Args:
        path: Where it is.
        kind: What it was taken for; `saved` if `save_to_disk` wrote it.
        splits: Name of each split -> what holds it.
        aside: What was left aside, in words.
    """

    path: Path
    kind: str
    splits: dict[str, Any]
    aside: tuple[str, ...] = ()

    def named(self, split: str) -> str:
        """The name that a split has here.

        Raises:
            ValueError: If there is none of that name.
        """
        known = CANONICAL.get(split.lower(), split)
        found = next((name for name in (split, known) if name in self.splits), None)
        if found is None:
            found = next((name for name in self.splits if CANONICAL.get(name.lower()) == known), None)
        if found is None and len(self.splits) == 1:
            only = next(iter(self.splits))
            raise ValueError(
                f"{str(self.path)!r} has one split; call it {only!r}, and name parts of it by slices such as "
                f"'{only}[:80%]' and '{only}[80%:]', or hold validation out of it."
            )
        if found is None:
            raise ValueError(unknown_name(f"split of {self.path}:", split, self.splits))
        return found

    def load(self, split: str, parts: Sequence[Any], image_column: str, label_column: str, streaming: bool) -> AnyData:
        """A split, or what its slices leave of it.

        Raises:
            ValueError: If there is no such split, or a stream is to be sliced.
        """
        whole = {part.splitname: self._read(self.named(part.splitname), image_column, label_column, streaming)
                 for part in parts}  # fmt: skip
        aside = f"; left aside: {', '.join(self.aside)}" if self.aside else ""
        _say(f"{self.path}: read as {self.kind}, with the splits {', '.join(self.splits)}{aside}.")
        if len(parts) == 1 and parts[0].from_ is None and parts[0].to is None:
            return whole[parts[0].splitname]
        if streaming:
            raise ValueError("a stream has no slices; name a whole split, or set streaming to false.")
        rows = rows_of(split, {name: len(data) for name, data in whole.items()})
        if len(whole) > 1:
            raise ValueError("slices of several splits cannot be joined; name parts of one split.")
        return next(iter(whole.values())).select([row for _, first, last in rows for row in range(first, last)])

    def _read(self, split: str, image_column: str, label_column: str, streaming: bool) -> Any:
        data = self.splits[split]
        if not isinstance(data, Dataset):
            return read(self.kind, data, image_column, label_column, streaming)
        return data.to_iterable_dataset() if streaming else data


def open_local(path: Path, wanted: frozenset[str], class_level: int | None = None) -> LocalData:
    """Find out what a folder or file holds.

    Args:
        path: Where it is.
        wanted: Names of splits that are asked for, which folders and files of any name may be.
        class_level: As in `load_named`.

    Raises:
        ValueError: If it holds no data that can be read.
    """
    if path.is_file():
        kind = FILES.get(path.suffix.lower())
        if kind is None:
            raise ValueError(
                f"a file of the ending {path.suffix!r} is no data set; bring {', '.join(FILES)}, or a folder."
            )
        if kind == "zip":
            return open_local(unpacked(path), wanted, class_level)
        return LocalData(path, kind, {split_in(path.stem, wanted, whole=False) or "train": (path,)})
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        stored = load_from_disk(str(path))
        return LocalData(path, "saved", dict(stored) if isinstance(stored, DatasetDict) else {"train": stored})
    layout = find_layout(Folder.of(path), wanted, num_listed, class_level)
    if layout.kind == "zip":
        return _zips(path, layout.splits)
    return LocalData(path, layout.kind, dict(layout.splits), layout.aside)


@cache
def _say(text: str) -> None:
    """Say something once, however many splits are read."""
    logger.info(text)


def same_rows(split: str, other: str) -> bool:
    """Whether two names of splits of one data set stand for rows in common, as far as names tell: overlapping slices.

    A share and a number of rows (`train[:50%]`, `train[100:]`) cannot be compared without the data.
    """
    return any(_overlap(one, another) for one in _instructions(split) for another in _instructions(other))


def _overlap(one: Any, other: Any) -> bool:
    if CANONICAL.get(one.splitname.lower(), one.splitname) != CANONICAL.get(other.splitname.lower(), other.splitname):
        return False
    is_whole = [part.from_ is None and part.to is None for part in (one, other)]
    if any(is_whole) or one.unit != other.unit:
        return any(is_whole)
    sizes = {part.splitname: LARGE for part in (one, other)}
    (_, first, last), (_, begin, end) = (rows_of(_text(part), sizes)[0] for part in (one, other))
    return max(first, begin) < min(last, end)


def rows_of(split: str, sizes: dict[str, int]) -> list[tuple[str, int, int]]:
    """Split, first row, and row after the last, of each part of an instruction such as `train[:10%]+train[90%:]`."""
    absolute = ReadInstruction.from_spec(split).to_absolute(sizes)
    return [(part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
            for part in absolute]  # fmt: skip


def _instructions(split: str) -> list[Any]:
    return ReadInstruction.from_spec(split)._relative_instructions


def _text(part: Any) -> str:
    unit = "%" if part.unit == "%" else ""
    if part.from_ is None and part.to is None:
        return part.splitname
    first, last = ("" if edge is None else f"{edge}{unit}" for edge in (part.from_, part.to))
    return f"{part.splitname}[{first}:{last}]"


def _zips(path: Path, splits: Mapping[str, tuple[Any, ...]]) -> LocalData:
    """Zips of class folders, one or several per split."""
    if list(splits) == ["train"] and len(splits["train"]) == 1:
        return open_local(unpacked(splits["train"][0]), frozenset())
    folders = {name: tuple(Folder.of(unpacked(archive)) for archive in archives) for name, archives in splits.items()}
    return LocalData(path, "class folders", folders)
