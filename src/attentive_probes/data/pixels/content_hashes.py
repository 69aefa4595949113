"""Hashes of the content of images, found by all processes together and remembered by what their files look like."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import datasets
import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from attentive_probes.data.pixels.decode import encoded_bytes
from attentive_probes.machine.processes import process_state

logger = logging.getLogger(__name__)
WINDOW = 4096  # images that wait for a thread at a time
NOTHING = bytes(8)  # the hash of what cannot be read


class Content(NamedTuple):
    """Hashes `(N,)` of the bytes of images, whether all were decoded once, and row -> what is wrong with it."""

    digests: np.ndarray
    are_checked: bool
    problems: dict[int, str]


def find_content(data: Any, column: str, check: Callable[[int, Any], None] | None, name: str) -> Content:
    """Hash every image of a split, and decode it if a check is given; files that look as before are not read again.

    Each process looks at its share, with as many threads as it has cores; all get everything.

    Args:
        data: Images, encoded, by row.
        column: Their column.
        check: Raises a `ValueError` for row and cell if an image cannot be read.
        name: What to call the split.
    """
    state = process_state()
    place = _place_of(data, column) if state.is_main_process else None
    (known,) = broadcast_object_list([_recall(place)])
    if known is not None and (known.are_checked or check is None):
        return known
    rank, processes, count = state.process_index, state.num_processes, len(data)
    mine = range(rank * count // processes, (rank + 1) * count // processes)
    parts = gather_object([_look(data, column, check, mine, name)])
    digests = np.concatenate([digests for digests, _ in parts])
    found = Content(digests, check is not None, {row: text for _, problems in parts for row, text in problems.items()})
    if state.is_main_process and not found.problems:
        _remember(place, found)
    return found


def digest_of(cell: Any) -> bytes:
    """A hash of what an image is made of, whatever its file is called.

    Raises:
        ValueError: If the cell is empty.
    """
    is_image = isinstance(cell, Image.Image)
    content = f"{cell.mode} {cell.size}".encode() + cell.tobytes() if is_image else encoded_bytes(cell)
    return hashlib.blake2b(content, digest_size=8).digest()


def _look(
    data: Any, column: str, check: Callable[[int, Any], None] | None, rows: range, name: str
) -> tuple[np.ndarray, dict[int, str]]:
    def look(row: int) -> tuple[bytes, str | None]:
        cell, digest = data[row][column], NOTHING
        try:
            if check is not None:
                check(row, cell)
            digest = digest_of(cell)
        except ValueError as error:
            return digest, str(error) if check is not None else None
        except OSError:
            pass  # whoever decodes it will say so
        return digest, None

    digests, problems = [], {}
    label = f"{'checking' if check is not None else 'hashing'} {name}"
    options = {"unit": "img", "leave": False, "mininterval": 1, "disable": None}
    with ThreadPoolExecutor() as pool, tqdm(total=len(rows), desc=label, **options) as bar:
        for first in range(rows.start, rows.stop, WINDOW):
            window = range(first, min(first + WINDOW, rows.stop))
            for row, (digest, problem) in zip(window, pool.map(look, window), strict=True):
                digests.append(digest)
                if problem is not None:
                    problems[row] = problem
            bar.update(len(window))
    return np.frombuffer(b"".join(digests), np.uint64), problems


def _place_of(data: Any, column: str) -> Path | None:
    """Where the hashes of images that look like these are kept: path, size and time of files, or what `datasets` says.

    `None` for images that nothing is known of without a look.
    """
    if not isinstance(data, Dataset) or len(data) == 0:
        return None
    look = hashlib.blake2b(digest_size=16)
    first = data[0][column]
    if first is None or first["bytes"] is not None or "://" in (first["path"] or "://"):
        look.update(data._fingerprint.encode())
    else:
        cells = data.with_format("arrow", columns=[column])[:][column].combine_chunks()
        if cells.field("bytes").null_count < len(cells) or cells.field("path").null_count:
            return None
        for path in cells.field("path").to_pylist():
            look.update(_look_of(path))
    return Path(datasets.config.HF_DATASETS_CACHE) / "image-content" / f"{look.hexdigest()}.npz"


def _look_of(path: str) -> bytes:
    try:
        status = os.stat(path)
    except OSError:
        return f"{path}\0".encode()
    return f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode()


def _recall(place: Path | None) -> Content | None:
    if place is None or not place.exists():
        return None
    try:
        with place.open("rb") as file, np.load(file) as stored:
            return Content(stored["digests"], bool(stored["are_checked"]), {})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:  # damaged: images are looked at again
        logger.info("What was remembered of images cannot be read: %s", error)
        return None


def _remember(place: Path | None, content: Content) -> None:
    if place is None:
        return
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial.npz")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, digests=content.digests, are_checked=content.are_checked)
        os.replace(partial, place)
    except OSError as error:
        logger.info("Hashes of images are not remembered: %s", error)
