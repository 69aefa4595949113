"""Fingerprints: short hashes that change when anything that matters changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LENGTH = 16


def fingerprint_of(values: Mapping[str, Any]) -> str:
    """Hash of plain values, independent of the order of keys."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=LENGTH).hexdigest()


def tensor_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Hash of the types, shapes and values of tensors, for instance of a state dict; about a gigabyte per second.

    Names do not count, so that it outlives their changes from one release of a library to the next.
    """
    found = []
    for tensor in tensors.values():
        tensor = tensor.detach().cpu().contiguous()
        digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=LENGTH)
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
        found.append(digest.digest())
    return hashlib.blake2b(b"".join(sorted(found)), digest_size=LENGTH).hexdigest()
