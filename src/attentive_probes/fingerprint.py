"""Fingerprints: short hashes that change when anything that matters changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

LENGTH = 16


def fingerprint_of(values: Mapping[str, Any]) -> str:
    """Hash of plain values, independent of the order of keys."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=LENGTH).hexdigest()


def bytes_fingerprint(content: bytes | str | np.ndarray) -> str:
    """Hash of bytes, a text, or the numbers of an array in order."""
    raw = content.encode() if isinstance(content, str) else content
    raw = np.ascontiguousarray(raw).tobytes() if isinstance(raw, np.ndarray) else raw
    return hashlib.blake2b(raw, digest_size=LENGTH).hexdigest()


def tensor_fingerprint(tensors: Mapping[str, Tensor], known: WeakTensorKeyDictionary | None = None) -> str:
    """Hash of the types, shapes and values of tensors, for instance of a state dict; about a gigabyte per second.

    Names do not count, so that it outlives their changes from one release of a library to the next.

    Args:
        tensors: The tensors.
        known: What was hashed before; a tensor that was not written to since is not hashed again.
    """
    known = WeakTensorKeyDictionary() if known is None else known
    found = []
    for tensor in tensors.values():
        state = (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, _sample(tensor).tolist())
        if known.get(tensor, (None,))[0] != state:
            known[tensor] = (state, _digest(tensor.detach().cpu().contiguous()))
        found.append(known[tensor][1])
    return hashlib.blake2b(b"".join(sorted(found)), digest_size=LENGTH).hexdigest()


def _sample(tensor: Tensor) -> Tensor:
    """A thousand values from all over a tensor: writing through `.data`, as adapters merge, leaves no other trace."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 1000)].cpu().contiguous()


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=LENGTH)
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.digest()
