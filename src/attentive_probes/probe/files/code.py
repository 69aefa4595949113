"""The code that a probe may bring along: one file, which unpacks itself where the package is missing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

PACKAGE = __name__.split(".")[0]  # another one where the file unpacked itself
ROOT = Path(__file__).parents[2]
CODE_FILE = "modeling_attentive_probe.py"
AUTO_MAP = {
    "AutoConfig": "modeling_attentive_probe.ProbeConfig",
    "AutoModel": "modeling_attentive_probe.ProbeModel",
    "AutoModelForImageClassification": "modeling_attentive_probe.ProbeForImageClassification",
}


def remote_code() -> str:
    """The file: the one that this code came out of, or a new one of all modules that a probe imports."""
    if (ROOT / CODE_FILE).exists():
        return (ROOT / CODE_FILE).read_text(encoding="utf-8")
    return import_module(f"{PACKAGE}.probe.files.bundle").bundle()  # not a part of the file
