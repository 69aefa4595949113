"""Files of predictions, written as they are made: CSV and JSON Lines row by row, Parquet and JSON in the end."""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from attentive_probes.checks import unknown_name
from attentive_probes.data.sources.listing import Folder
from attentive_probes.evaluation.prediction import Prediction
from attentive_probes.files.untrusted import untrusted
from attentive_probes.files.writing import whole_file, write_whole

LINES = (".csv", ".jsonl")  # which grow row by row
WHOLE = (".json", ".parquet")  # which are made of JSON Lines in the end
SCHEMA = pa.schema(
    {"path": pa.string(), "status": pa.string(), "labels": pa.list_(pa.string()), "scores": pa.list_(pa.float32())}
)


def write_predictions(
    make: Callable[[Sequence[Path]], Iterator[Prediction]],
    files: Sequence[Path],
    path: Path,
    num_labels: int,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
) -> int:
    """Write the predictions of files as they come, and return how many there are in the end.

    A stopped one leaves what it has: `.csv` and `.jsonl` as they are, others in `<name>.partial.jsonl`. What made them
    is noted beside them, in `.<name>.made-by.json`; one process at a time writes.

    Args:
        make: Makes the predictions of some files.
        files: All files.
        path: `.csv`, `.jsonl`, `.json` or `.parquet` file.
        num_labels: Number of labels of a row, for the columns of a CSV file.
        resume: Whether to leave out files that a stopped one has written, and add to it.
        identity: What the predictions depend on beside the files: the probe, and the options.

    Raises:
        ValueError: If the file name has another ending, or the file exists and is not to be resumed: it holds no
            predictions, was made by another probe or with other options, or another process writes to it. Checked
            before the first prediction.
    """
    if path.suffix not in (*LINES, *WHOLE):
        raise ValueError(unknown_name("ending of a file of predictions:", path.suffix, (*LINES, *WHOLE)))
    growing = path if path.suffix in LINES else path.with_name(f"{path.name}.partial.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        with lock:
            return _write(make, files, path, growing, num_labels, resume, dict(identity or {}))
    except Timeout as error:
        raise ValueError(f"Another process is writing to {path}; wait for it, or name another file.") from error
    finally:
        if not lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)


def _write(
    make: Callable[[Sequence[Path]], Iterator[Prediction]],
    files: Sequence[Path],
    path: Path,
    growing: Path,
    num_labels: int,
    resume: bool,
    identity: dict[str, Any],
) -> int:
    header = ["path", "status", *(f"{kind}_{rank}" for rank in range(1, num_labels + 1) for kind in ("label", "score"))]
    note = path.with_name(f".{path.name}.made-by.json")
    done: set[str] = set()
    if growing.exists() and resume:
        done = _written(growing, header)
        if note.exists():
            _check_same(note, identity, growing)
        elif done:
            _check_by_example(make, growing, header)
    elif growing.exists() and growing == path:
        raise ValueError(f"{path} is there already; name another file, go on with it (--resume), or remove it.")
    count = len(done)
    write_whole(note, json.dumps(identity, indent=1, default=str) + "\n", durable=False)
    with growing.open("a" if done else "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if growing.suffix == ".csv" and not done:
            writer.writerow(header)
        for row in make([one for one in files if str(one) not in done]):
            if growing.suffix == ".csv":
                writer.writerow(_cells(row, len(header)))
            else:
                file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            count += 1
    if growing != path:
        _finish(growing, path)
        note.unlink(missing_ok=True)
    return count


def _check_same(note: Path, identity: Mapping[str, Any], growing: Path) -> None:
    """Check that what a stopped one has written was made as the rest will be."""
    with untrusted(note, "what predictions were made by"):
        theirs = dict(json.loads(note.read_text("utf-8")))
    ours = json.loads(json.dumps(dict(identity), default=str))
    for key in dict.fromkeys([*theirs, *ours]):
        if theirs.get(key) != ours.get(key):
            raise ValueError(
                f"{growing} was made with {key}={theirs.get(key)!r}, not {ours.get(key)!r}; go on with the same, or "
                "name another file."
            )


def _check_by_example(
    make: Callable[[Sequence[Path]], Iterator[Prediction]], growing: Path, header: Sequence[str]
) -> None:
    """Check a file without a note, such as a copy, by making one of its rows again."""
    with untrusted(growing, "predictions to go on with"):
        last = growing.read_text("utf-8").splitlines()[-1]
        if growing.suffix == ".csv":
            cells = next(csv.reader([last]))
        else:
            cells = _cells(Prediction(**json.loads(last)), len(header))
        again = [_cells(row, len(header)) for row in make([Path(from_cell(cells[0]))])]
        if not again or len(again[0]) != len(cells) or not all(map(_are_alike, again[0], cells)):
            raise ValueError(
                "it does not say which probe it is from, and this one answers otherwise with these options "
                f"({again[0][2:4] if again else 'nothing'}, not {cells[2:4]}); name another file"
            )


def _are_alike(cell: str, other: str) -> bool:
    try:
        return abs(float(cell) - float(other)) < 1e-3
    except ValueError:
        return cell == other


def _written(path: Path, header: list[str]) -> set[str]:
    """The files that a stopped one has written; what it was writing when it was stopped is cut off."""
    with untrusted(path, "predictions to go on with"):
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode("utf-8")
        if path.suffix == ".csv":
            rows = list(csv.reader(lines.splitlines(keepends=True)))
            if rows and rows[0] != header:
                raise ValueError(f"it has the columns {rows[0]}, not {header}")
            found = {from_cell(row[0]) for row in rows[1:]}
        else:
            found = {json.loads(line)["path"] for line in lines.splitlines()}
    if len(whole) < len(content):
        path.write_bytes(whole)
    return found


def _cells(row: Prediction, width: int) -> list[str]:
    pairs = zip(row.labels, row.scores, strict=True)
    cells = [as_cell(row.path), as_cell(row.status)]
    cells += [cell for label, score in pairs for cell in (as_cell(label), f"{score:.6g}")]
    return cells + [""] * (width - len(cells))


def _finish(lines: Path, path: Path) -> None:
    """Make one whole file of JSON Lines."""
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    if path.suffix == ".json":
        write_whole(path, json.dumps(rows, indent=2) + "\n", durable=False)
    else:
        with whole_file(path, durable=False) as partial:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), partial)
    lines.unlink()


def as_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like one, and is no number, gets a quote.

    So does one that begins with a quote, so that `from_cell` knows what was added.
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def from_cell(cell: str) -> str:
    """The text of which `as_cell` made a cell."""
    return cell.removeprefix("'")


def read_list(content: bytes) -> list[Path]:
    """The files that a list names: a line each, or, as `find -print0` writes them, with a zero byte behind each.

    A folder stands for the images below it. Byte order marks, as PowerShell writes them, and empty lines do not count;
    names keep the bytes that they have.

    Raises:
        ValueError: If the list names no file.
    """
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        text = content.decode("utf-16")
    else:
        text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    names = text.split("\0") if "\0" in text else [line.strip() for line in text.split("\n")]
    found: dict[Path, None] = {}
    for path in (Path(name) for name in names if name.strip()):
        found.update(dict.fromkeys(map(Path, Folder.of(path).images()) if path.is_dir() else [path]))
    if not found:
        raise ValueError("The list on standard input names no file.")
    return list(found)
