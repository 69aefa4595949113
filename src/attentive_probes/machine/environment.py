"""The circumstances of a run: what it ran on, and with which versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch


def hardware() -> str:
    """The accelerators of this machine, or its CPU cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    names = ("attentive-probes", "torch", "transformers", "accelerate", "datasets", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
