"""Files and folders that appear whole: written under another name, then renamed. A crash leaves the old or the new."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

FULL = 2**20  # bytes that a full disk may still have free


@contextmanager
def whole_file(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """A context with a path to write to; at its end, what was written takes the place of `path`.

    Args:
        path: The file; its folder is made if there is none.
        durable: Whether it outlives a loss of power; for what could not be made again.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    with _clean(path, lambda: partial.unlink(missing_ok=True)):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if durable:
            sync(partial)
        os.replace(partial, path)
        if durable:
            sync(path.parent)


@contextmanager
def csv_file(path: str | os.PathLike, header: Sequence[str], durable: bool = True) -> Iterator[Any]:
    """A context with a writer of rows of a CSV file, whose header is written; see `whole_file`."""
    with whole_file(path, durable) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        yield writer


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A context with an empty folder to fill; at its end, it takes the place of `path`."""
    partial, old = (path.with_name(f".{path.name}.{ending}") for ending in ("partial", "old"))
    with _clean(path, lambda: shutil.rmtree(partial, ignore_errors=True)):
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        shutil.rmtree(old, ignore_errors=True)


def write_whole(path: str | os.PathLike, content: str | bytes, durable: bool = True) -> None:
    """Write a file in one step; arguments and errors as of `whole_file`."""
    with whole_file(path, durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Wait until a file, or what is said of the files in a folder, is on the disk."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    with suppress(PermissionError):  # of folders, on Windows
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _clean(path: Path, discard: Callable[[], None]) -> Iterator[None]:
    """Remove what was begun if it fails, and say so in one sentence."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            discard()
        if not isinstance(error, OSError | RuntimeError | SafetensorError) or isinstance(error, NotWritten):
            raise
        raise NotWritten(path, error) from error


class NotWritten(OSError):
    """A file that cannot be written.

    Args:
        path: Where it belongs.
        error: What went wrong.
    """

    def __init__(self, path: Path, error: Exception):
        place = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path())
        is_full = shutil.disk_usage(place).free < FULL or "No space left" in str(error)
        cause = "the disk is full" if is_full else (getattr(error, "strerror", None) or str(error))
        super().__init__(
            f"{path} cannot be written: {cause}. What was complete before is kept; make room, or name another folder, "
            "and go on."
        )
