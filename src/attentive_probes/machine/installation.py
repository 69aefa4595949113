"""How to install what is missing, and what is wrong with an installation whose imports fail for a distant reason."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


def how_to_install(extra: str) -> str:
    """How to get the packages of an extra: from the published package, and in a checkout of the project."""
    return f"pip install 'attentive-probes[{extra}]' (published), or pip install --editable '.[{extra}]' in a checkout"


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
