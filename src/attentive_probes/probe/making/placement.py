"""Arguments that users know from other models: taken by the public methods, or refused by their names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from attentive_probes.backbones.quantization import quantization_of
from attentive_probes.checks import unknown_name

PRECISIONS = ("float32", "bfloat16", "float16", "float64")
PLACEMENT = (
    "dtype", "attn_implementation", "device_map", "quantization_config", "max_memory", "offload_folder",
    "offload_buffers",
)  # fmt: skip
HUB = ("token", "cache_dir", "local_files_only", "force_download")
LABELS = ("num_labels", "id2label", "label2id", "problem_type")


def take(arguments: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Take those of the arguments that have these names out of them."""
    return {name: arguments.pop(name) for name in names if name in arguments}


def take_placement(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take what says how a backbone is loaded out of the arguments of `from_backbone` or `from_pretrained`.

    Raises:
        ValueError: If the precision or the quantization is unknown.
    """
    if "torch_dtype" in arguments:  # the name before transformers 5
        arguments.setdefault("dtype", arguments.pop("torch_dtype"))
    placement = take(arguments, PLACEMENT)
    if "dtype" in placement:
        placement["dtype"] = precision_of(placement["dtype"])
    if isinstance(placement.get("quantization_config"), str):
        placement["quantization_config"] = quantization_of(placement["quantization_config"])
    return placement


def precision_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A precision by its name, as PyTorch spells it; `None` and `auto` leave it to us.

    Raises:
        ValueError: If no precision has that name.
    """
    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        return None if isinstance(dtype, str) else dtype
    if not isinstance(dtype, str) or dtype not in PRECISIONS:
        raise ValueError(unknown_name("dtype", str(dtype), ("auto", *PRECISIONS)))
    return getattr(torch, dtype)


def refuse_rest(arguments: Collection[str], method: str, known: Collection[str]) -> None:
    """Refuse arguments that a public method does not know.

    Raises:
        TypeError: If there are any; the text names the method and what it takes.
    """
    if arguments:
        raise TypeError(f"{method}() takes no argument {sorted(arguments)[0]!r}; it takes {', '.join(sorted(known))}.")
