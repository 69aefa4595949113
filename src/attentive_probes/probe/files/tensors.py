"""Tensors under the names that they have without wrappers, and what of them a saved folder holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from attentive_probes.backbones.vision_backbone import COMPILED

WRAPPED = re.compile(r"\.(base_layer|original_module)\.")  # what PEFT puts around a layer


def plain_state(module: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """State dict of a module, compiled or not; `keep_vars` as there."""
    return plain_names(module.state_dict(keep_vars=keep_vars))


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names that its tensors have in a module that is not compiled."""
    return {COMPILED.sub(r"\1", name): tensor for name, tensor in state.items()}


def beside_adapter(model: nn.Module, method: str, keep_vars: bool = False) -> dict[str, Tensor]:
    """State of a model without the adapter that is on it, unmerged.

    Args:
        model: The model.
        method: How the names of the adapter's parts begin: `lora`, `vera`.
        keep_vars: Whether to give the parameters themselves.
    """
    own = (f".{method}_", ".modules_to_save.", ".token_adapter.")
    kept = {
        name: tensor for name, tensor in plain_state(model, keep_vars).items() if not any(part in name for part in own)
    }
    return {WRAPPED.sub(".", name): tensor for name, tensor in kept.items()}


def check_written(folder: Path, stem: str, expected: Mapping[str, Tensor]) -> None:
    """Check that the files of a folder hold tensors of these names and shapes, and no others.

    Args:
        folder: Where they were saved.
        stem: How the names of their files begin, before `.safetensors`, a variant or the number of a shard.
        expected: Name -> tensor of the same shape.

    Raises:
        ValueError: If one is missing, superfluous, or of another shape; the text names it.
    """
    check_shapes(_shapes(folder, stem), expected, f"What was saved in {str(folder)!r}")


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], what: str) -> None:
    """Check names and shapes of tensors.

    Args:
        found: Name -> shape.
        expected: Name -> tensor of the same shape.
        what: What has them, in words.

    Raises:
        ValueError: If one is missing, superfluous, or of another shape; the text names it.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if found != shapes:
        names = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
        raise ValueError(
            f"{what} could not be loaded again: {names[:5]} are missing, superfluous or of "
            "another shape. Something else has wrapped or replaced modules of the probe; undo that before it is saved. "
            "An adapter belongs in from_backbone(..., lora=...)."
        )


def _shapes(folder: Path, stem: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all tensors in the files of a folder."""
    index = next(folder.glob(f"{stem}*.index*.json"), None)
    if index is not None:
        files = sorted({folder / name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()})
    else:
        files = sorted(folder.glob(f"{stem}*.safetensors"))
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        with safe_open(path, "pt") as content:
            found |= {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
    return found


def is_weights(name: str) -> bool:
    """Whether a file in the folder of a probe holds its tensors, or the index of their shards."""
    return name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
