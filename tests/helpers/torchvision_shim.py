"""Make the Python part of a CUDA build of torchvision importable beside a CPU build of torch.

PyPI has only the CUDA build; its compiled operators do not load here, and registering shapes for them fails. timm needs
transforms and layers alone, which are Python. Import this module before transformers, which looks for torchvision.
"""

import importlib.util

import torch


def _import_torchvision() -> None:
    """Import torchvision, if it is there, skipping the operators that this torch does not know."""
    if importlib.util.find_spec("torchvision") is None:
        return
    register = torch.library.register_fake

    def lenient(operator, *arguments, **options):
        if callable(operator) or not str(operator).startswith("torchvision::"):
            return register(operator, *arguments, **options)

        def decorate(function):
            try:
                return register(operator, *arguments, **options)(function)
            except RuntimeError:
                return function

        return decorate

    torch.library.register_fake = lenient
    try:
        importlib.import_module("torchvision")
    finally:
        torch.library.register_fake = register


_import_torchvision()
