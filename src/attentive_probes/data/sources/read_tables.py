"""Tables of paths and labels: CSV, TSV or JSON Lines, read as they are written or refused with the line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SEPARATORS = (",", ";", "\t", "|")
ENDINGS = {".tsv": ("\t",), ".csv": SEPARATORS}
# What programs write for "not known". Beside decimals it is a gap; beside anything else it may be a name.
GAPS = {"", "na", "n/a", "nan", "null", "none", "-", "?"}
DECIMAL = re.compile(r"[+-]?\d+\.\d+")
MANY = 20  # different decimals that are measurements, also where `1.10` does not print back as it was


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, each from column to what is written there.

    Raises:
        ValueError: If it is not UTF-8, two columns have one name, a row has more or fewer cells than the header, or
            there are no rows.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {_encoding_of(path, error)} Save it as UTF-8.") from error
    seps = ENDINGS.get(path.suffix.lower())
    rows = _json_lines(path, text) if seps is None else _cells(path, text, seps)
    if not rows:
        raise ValueError(f"{path} has no rows; the first line names the columns.")
    return rows


def typed(values: Sequence[Any]) -> list[Any]:
    """A column of texts as numbers, where every entry is written as one; `None` for gaps among numbers.

    A text is a number if the number prints as that text: `1`, `-3.5`; not `001`, `1.10`, `1E2`, `NA`, which are names.
    Decimals of a fixed number of places are numbers as well where many differ.
    """
    texts = [value for value in values if value is not None]
    if not texts or not all(isinstance(value, str) for value in texts):
        return list(values)
    written = {text for text in texts if text.strip()}
    if written and all(_prints_back(text, int) for text in written):
        return [int(value) if value is not None and value.strip() else None for value in values]
    known = {text for text in written if text.strip().casefold() not in GAPS}
    has_fractions = any(DECIMAL.fullmatch(text) for text in known)
    exact = all(_prints_back(text, int) or _prints_back(text, float) for text in known)
    measured = len(known) > MANY and all(DECIMAL.fullmatch(text) for text in known)
    if known and has_fractions and (exact or measured):
        return [float(value) if value in known else None for value in values]
    return list(values)


def _prints_back(text: str, kind: type) -> bool:
    try:
        return str(kind(text)) == text and any(letter.isdigit() for letter in text)
    except ValueError:
        return False


def _cells(path: Path, text: str, separators: Sequence[str]) -> list[dict[str, Any]]:
    first = text.partition("\n")[0]
    separator = max(separators, key=first.count)  # of equals the first
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    header: list[str] = []
    rows = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{path} has two columns that are called {twice!r}; rename one.")
            continue
        if len(cells) != len(header):
            raise ValueError(
                f"Line {reader.line_num} of {path} has {len(cells)} cells, the header has {len(header)} columns; quote "
                f"a cell that holds a {separator!r}."
            )
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"Line {number} of {path} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"Line {number} of {path} is no JSON object with the columns as keys.")
        rows.append(row)
    return rows


def _encoding_of(path: Path, error: UnicodeDecodeError) -> str:
    """What the bytes of a file look like, in a sentence."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return "it begins like UTF-16, as Excel writes Unicode text."
    return f"the byte 0x{error.object[error.start]:02x} is there, as in Latin-1 or Windows-1252."
