"""What every head did in every epoch, a line each: written once, when it happens."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HISTORY = "history.jsonl"


def append_history(folder: Path, rows: Iterable[tuple[str, Mapping[str, float]]]) -> None:
    """Append what heads did in an epoch: name, `epoch`, `train_loss` and metrics; what is no number becomes null."""
    lines = [json.dumps({"head": name, **{key: _plain(value) for key, value in row.items()}}) for name, row in rows]
    with (folder / HISTORY).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def read_history(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Name of each head -> its epochs in order; nothing where nothing was written."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(folder):
        found.setdefault(row.pop("head"), []).append(row)
    return found


def cut_history(folder: Path, epoch: int) -> None:
    """Forget what came after an epoch, as before a run goes on from there."""
    rows = [row for row in _rows(folder) if row["epoch"] <= epoch]
    partial = folder / f"{HISTORY}.partial"
    partial.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    os.replace(partial, folder / HISTORY)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / HISTORY
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the last one of a killed process
            return


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
