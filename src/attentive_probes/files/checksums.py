"""Checksums: whether a file still holds what was written to it. As fast as a disk; no seals against forgery."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash

from attentive_probes.files.writing import whole_file

PIECE = 2**22  # bytes that are read at a time
MARK = b"\nxxh3-128:"  # before the checksum at the end of a file of tensors
LENGTH = 32  # of a checksum, in hexadecimal digits


class Checksum:
    """A checksum that grows with what is written.

    Attributes:
        size: Number of bytes so far.
    """

    def __init__(self) -> None:
        self._hash, self.size = xxhash.xxh3_128(), 0

    @classmethod
    def of(cls, path: Path, size: int | None = None) -> Checksum:
        """That of a file, or of its first `size` bytes."""
        found, left = cls(), path.stat().st_size if size is None else size
        buffer = memoryview(bytearray(min(PIECE, max(1, left))))
        with path.open("rb", buffering=0) as file:
            while left and (count := file.readinto(buffer[: min(left, len(buffer))])):
                found.update(buffer[:count])
                left -= count
        return found

    def update(self, content: Any) -> None:
        """Go on with bytes."""
        self._hash.update(content)
        self.size += len(content)

    @property
    def text(self) -> str:
        """As it is written down."""
        return self._hash.hexdigest()


def checksum_of(path: Path, size: int | None = None) -> str:
    """The checksum of a file, or of its first `size` bytes."""
    return Checksum.of(path, size).text


def save_checked(content: Mapping[str, Any] | torch.Tensor, path: Path) -> None:
    """Write tensors and plain values in one step, with a checksum at the end, which `torch.load` passes over."""
    with whole_file(path) as partial:
        torch.save(content, partial)
        mark = MARK + checksum_of(partial).encode()
        with partial.open("ab") as file:
            file.write(mark)


def load_checked(path: Path) -> Any:
    """Read what `save_checked` wrote.

    Raises:
        ValueError: If it holds anything else.
    """
    try:
        size = path.stat().st_size - len(MARK) - LENGTH
        with path.open("rb") as file:
            file.seek(max(0, size))
            mark = file.read()
        if size > 0 and mark == MARK + checksum_of(path, size).encode():
            return torch.load(path, map_location="cpu", weights_only=True)
        reason = "it is not what was written there"
    except OSError as error:
        reason = str(error)
    raise ValueError(
        f"{path} is damaged, or of another release ({reason}). Restore it from a copy, or start again with "
        "train.overwrite=true."
    )
