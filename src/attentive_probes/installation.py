"""What is wrong with an installation, in one sentence, where an import fails for a reason that is far from it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


def explain_import(error: Exception) -> Exception:
    """The error with its cause and the way out, where torchvision breaks transformers; any other as it is.

    A torchvision that was built for another torch, say for CUDA beside one for CPUs, does not load; transformers then
    cannot import its image processors.
    """
    if not isinstance(error, ImportError) or find_spec("torchvision") is None:
        return error
    try:
        import_module("torchvision")
    except Exception as cause:
        found = " and ".join(f"{name} {_version_of(name)}" for name in ("torch", "torchvision"))
        return ImportError(
            f"{found} do not fit together ({str(cause).splitlines()[0]}), so transformers cannot be imported. "
            "Install both from one index, for CPUs `pip install torch torchvision --index-url "
            "https://download.pytorch.org/whl/cpu`, or `pip uninstall torchvision`: nothing here needs it."
        )
    return error


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(unknown version)"
