"""Files of predictions, written as they are made: CSV and JSON Lines row by row, Parquet and JSON in the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attentive_probes.evaluation.prediction import Prediction
from attentive_probes.foreign_files import foreign
from attentive_probes.naming import unknown_name
from attentive_probes.writing import whole_file, write_whole

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
) -> int:
    """Write the predictions of files as they come, and return how many there are in the end.

    A stopped one leaves what it has: `.csv` and `.jsonl` as they are, others in `<name>.partial.jsonl`.

    Args:
        make: Makes the predictions of some files.
        files: All files.
        path: `.csv`, `.jsonl`, `.json` or `.parquet` file.
        num_labels: Number of labels of a row, for the columns of a CSV file.
        resume: Whether to leave out files that a stopped one has written, and add to it.

    Raises:
        ValueError: If the file name has another ending, the file is there already, or is none to go on with; before any
            prediction is made.
    """
    if path.suffix not in (*LINES, *WHOLE):
        raise ValueError(unknown_name("ending of a file of predictions:", path.suffix, (*LINES, *WHOLE)))
    growing = path if path.suffix in LINES else path.with_name(f"{path.name}.partial.jsonl")
    header = ["path", "status", *(f"{kind}_{rank}" for rank in range(1, num_labels + 1) for kind in ("label", "score"))]
    done: set[str] = set()
    if growing.exists() and resume:
        done = _written(growing, header)
    elif growing.exists() and growing == path:
        raise ValueError(f"{path} is there already; name another file, go on with it (--resume), or remove it.")
    growing.parent.mkdir(parents=True, exist_ok=True)
    count = len(done)
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
    return count


def _written(path: Path, header: list[str]) -> set[str]:
    """The files that a stopped one has written; what it was writing when it was stopped is cut off."""
    with foreign(path, "predictions to go on with"):
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode("utf-8")
        if path.suffix == ".csv":
            rows = list(csv.reader(lines.splitlines(keepends=True)))
            if rows and rows[0] != header:
                raise ValueError(f"it has the columns {rows[0]}, not {header}")
            found = {row[0].removeprefix("'") if row[0].startswith("'") else row[0] for row in rows[1:]}
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
    """A text that no spreadsheet takes for a formula: one that begins like one, and is no number, gets a quote."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def read_list(lines: Iterable[str]) -> list[Path]:
    """The files that a list names, a line each; empty lines do not count.

    Raises:
        ValueError: If there is none.
    """
    found = list(dict.fromkeys(Path(line.strip()) for line in lines if line.strip()))
    if not found:
        raise ValueError("The list on standard input names no file.")
    return found
