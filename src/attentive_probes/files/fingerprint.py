"""Fingerprints: short hashes that change when anything that matters changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from operator import eq
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

LENGTH, HALF = 16, 8
BETWEEN = "-"  # the two hashes of tensors


def fingerprint_of(values: Mapping[str, Any]) -> str:
    """Hash of plain values, independent of the order of keys."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=LENGTH).hexdigest()


def bytes_fingerprint(content: bytes | str | np.ndarray) -> str:
    """Hash of bytes, a text, or the numbers of an array in order."""
    raw = content.encode() if isinstance(content, str) else content
    raw = np.ascontiguousarray(raw).tobytes() if isinstance(raw, np.ndarray) else raw
    return hashlib.blake2b(raw, digest_size=LENGTH).hexdigest()


def tensor_fingerprint(tensors: Mapping[str, Tensor], known: WeakTensorKeyDictionary | None = None) -> str:
    """Hash of tensors and of which is where, for instance of a state dict; about a gigabyte per second.

    Two hashes of types, shapes and values, with `-` between them: of the tensors in their order, and by their names.
    One of the two outlives what a release of a library changes, new names or another order; blocks that were exchanged
    change both. Compare with `same_tensors`.

    Args:
        tensors: The tensors, by name.
        known: What was hashed before; a tensor that was not written to since is not hashed again.
    """
    digests = _digests_of(tensors, known)
    return f"{_joined(digests.values(), HALF)}{BETWEEN}{_by_name(digests, HALF)}"


def tensors_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Hash of tensors under their names, whatever their order: whether a file still holds what was saved."""
    return _by_name(_digests_of(tensors, None), LENGTH)


def _by_name(digests: Mapping[str, bytes], length: int) -> str:
    return _joined((name.encode() + b"\0" + digests[name] for name in sorted(digests)), length)


def same_tensors(found: str, stored: str) -> bool:
    """Whether two fingerprints, with or without a precision before them, are of the same tensors in the same places."""
    (precision, _, one), (other_precision, _, other) = found.rpartition(":"), stored.rpartition(":")
    halves, others = one.split(BETWEEN), other.split(BETWEEN)
    return precision == other_precision and len(halves) == len(others) and any(map(eq, halves, others))


def older_fingerprint(tensors: Mapping[str, Tensor], known: WeakTensorKeyDictionary | None = None) -> str:
    """What earlier releases stored: it does not know which tensor is where."""
    return _joined(sorted(_digests_of(tensors, known).values()), LENGTH)


def is_older(stored: str) -> bool:
    """Whether a stored fingerprint is one of `older_fingerprint`."""
    return BETWEEN not in stored


def _digests_of(tensors: Mapping[str, Tensor], known: WeakTensorKeyDictionary | None) -> dict[str, bytes]:
    known = WeakTensorKeyDictionary() if known is None else known
    found = {}
    for name, tensor in tensors.items():
        state = (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, _sample(tensor).tolist())
        if known.get(tensor, (None,))[0] != state:
            known[tensor] = (state, _digest(tensor.detach().cpu().contiguous()))
        found[name] = known[tensor][1]
    return found


def _joined(digests: Iterable[bytes], length: int) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=length).hexdigest()


def _sample(tensor: Tensor) -> Tensor:
    """A thousand values from all over a tensor: writing through `.data`, as adapters merge, leaves no other trace."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 1000)].cpu().contiguous()


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=LENGTH)
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.digest()
