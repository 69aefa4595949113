"""What every head did in every epoch, a line each: written once, when it happens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attentive_probes.evaluation.runs.run_files import HISTORY
from attentive_probes.files.checksums import checksum_of
from attentive_probes.files.untrusted import fits, untrusted
from attentive_probes.files.writing import NotWritten, write_whole


def append_history(folder: Path, rows: Iterable[tuple[str, Mapping[str, float | None]]]) -> None:
    """Append what heads did in an epoch: name, `epoch`, `train_loss` and metrics; what is no number becomes null."""
    lines = [json.dumps({"head": name, **{key: _plain(value) for key, value in row.items()}}) for name, row in rows]
    path = folder / HISTORY
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise NotWritten(path, error) from error


def read_history(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Name of each head -> its epochs in order; nothing where nothing was written.

    Raises:
        ValueError: If a line is not valid JSON; the text names the file. A truncated last line is ignored.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    path = folder / HISTORY
    if path.exists():
        with untrusted(path, "the history of a run"):
            lines = path.read_text("utf-8").split("\n")
            for line in lines[:-1]:
                row = json.loads(line)
                if not fits(row, dict[str, Any]) or not isinstance(row.get("head"), str):
                    raise ValueError(f"a line is {line[:80]!r}")
                if not fits({**row, "head": 0}, dict[str, float | None]):
                    raise ValueError(f"not all is a number in the line {line[:80]!r}")
                found.setdefault(row.pop("head"), []).append(row)
    return found


def history_mark(folder: Path) -> dict[str, Any]:
    """How far the history is: its bytes, and their checksum."""
    path = folder / HISTORY
    return {"bytes": path.stat().st_size, "checksum": checksum_of(path)} if path.exists() else {"bytes": 0}


def cut_history(folder: Path, mark: Mapping[str, Any]) -> None:
    """Forget what came after a mark, as before a run goes on from there.

    Raises:
        ValueError: If what came before it is not what was written.
    """
    path, size = folder / HISTORY, mark["bytes"]
    if size and not (path.exists() and checksum_of(path, size) == mark["checksum"]):
        raise ValueError(
            f"{path} is damaged: it does not hold the epochs that the state of the run counts. Restore it from a copy, "
            "or start again with train.overwrite=true."
        )
    write_whole(path, path.read_bytes()[:size] if size else b"")


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
