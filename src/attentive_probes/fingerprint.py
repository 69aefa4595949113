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
    """Hash of the names, types and values of tensors, for instance of a state dict; about a gigabyte per second."""
    digest = hashlib.blake2b(digest_size=LENGTH)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
