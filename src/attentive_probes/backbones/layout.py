"""Which token is which: found once, by a dry run of one block, for any flat vision transformer."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights

from attentive_probes.backbones.load import build_model, resolution_arguments, vision_model_class
from attentive_probes.tokens import TokenLayout


@dataclass(frozen=True)
class Geometry:
    """What a probe must know of its backbone: token layout, number of layers, input size (height, width) in pixels."""

    tokens: TokenLayout
    num_layers: int
    image_size: tuple[int, int]


def find_geometry(config: PreTrainedConfig, image_size: tuple[int, int]) -> Geometry:
    """Run one block of the backbone of `config` without weights and read its shapes.

    The structural rule: the last rows x columns tokens are patches, the first token before them is the class token,
    any further ones count as registers (DINOv2's registers, DeiT's distillation token).

    Args:
        config: Configuration of a vision backbone.
        image_size: Height and width of the input in pixels.

    Raises:
        ValueError: If the backbone does not yield a flat token sequence for this image size.
    """
    patch = _patch_size(config)
    grid = (image_size[0] // patch[0], image_size[1] // patch[1])
    state = _dry_run(config, image_size)
    num_suffix = getattr(config, "num_detection_tokens", 0)  # YOLOS
    num_prefix = state.shape[1] - grid[0] * grid[1] - num_suffix if state.ndim == 3 else -1
    if num_prefix < 0 or 0 in grid:
        raise ValueError(
            f"{vision_model_class(config).__name__} gives {tuple(state.shape)} for images of {image_size} pixels, "
            f"which is no token sequence over a {grid[0]} x {grid[1]} grid of patches; "
            "use a plain vision transformer such as ViT, MAE, DeiT, DINOv2, CLIP or SigLIP."
        )
    layout = TokenLayout(state.shape[2], min(num_prefix, 1), max(num_prefix - 1, 0), grid)
    return Geometry(layout, getattr(config, "num_hidden_layers", 0), image_size)


def _dry_run(config: PreTrainedConfig, image_size: tuple[int, int]) -> torch.Tensor:
    """`last_hidden_state` of one image of zeros, through one block where the depth can be chosen.

    On real memory: on the meta device, families that cache their position tables by size (BEiT) would keep a table
    without values, and the loaded backbone would use it.
    """
    shallow = deepcopy(config)
    if hasattr(shallow, "num_hidden_layers"):
        shallow.num_hidden_layers = 1
    try:
        return _run(shallow, image_size)
    except RuntimeError:  # stages whose shapes depend on their number
        return _run(config, image_size)


@torch.no_grad()
def _run(config: PreTrainedConfig, image_size: tuple[int, int]) -> torch.Tensor:
    with no_init_weights():
        model = build_model(config).eval()
    pixels = torch.zeros(1, getattr(config, "num_channels", 3), *image_size)
    return model(pixel_values=pixels, **resolution_arguments(model, image_size)).last_hidden_state


def _patch_size(config: PreTrainedConfig) -> tuple[int, int]:
    patch = getattr(config, "patch_size", None)
    if patch is None:
        raise ValueError(
            f"The backbone type {config.model_type!r} has no patch size, so its tokens cannot be located; "
            "use a plain vision transformer such as ViT, MAE, DeiT, DINOv2, CLIP or SigLIP."
        )
    return (patch, patch) if isinstance(patch, int) else (patch[0], patch[1])
