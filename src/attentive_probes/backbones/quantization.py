"""Backbones in fewer bits, by a name that fits into a recipe."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import transformers

from attentive_probes.checks import unknown_name


def _torchao() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig())


QUANTIZATIONS: dict[str, Callable[[], Any]] = {
    "torchao-int8": _torchao,
    "quanto-int8": lambda: transformers.QuantoConfig(weights="int8"),
    "quanto-int4": lambda: transformers.QuantoConfig(weights="int4"),
    "bitsandbytes-int8": lambda: transformers.BitsAndBytesConfig(load_in_8bit=True),
    "bitsandbytes-int4": lambda: transformers.BitsAndBytesConfig(load_in_4bit=True),
}
MODULES = {"torchao": "torchao", "quanto": "optimum.quanto", "bitsandbytes": "bitsandbytes"}


def quantization_of(name: str) -> Any:
    """The configuration of transformers for a quantization: weights in fewer bits, computed with in floats.

    Args:
        name: One of `QUANTIZATIONS`.

    Raises:
        ValueError: If there is none of that name, or its package is not installed.
    """
    if name not in QUANTIZATIONS:
        raise ValueError(unknown_name("quantization", name, QUANTIZATIONS))
    module = MODULES[name.partition("-")[0]]
    try:
        import_module(module)
    except ImportError as error:
        package = module.replace(".", "-")
        raise ValueError(f"The quantization {name!r} needs {package}: pip install {package}.") from error
    return QUANTIZATIONS[name]()
