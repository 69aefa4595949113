"""How an image enters a backbone, and how its states come out: the few families that differ from the common form."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

Arguments = dict[str, Any]


def _images(model: PreTrainedModel, pixels: Tensor) -> Arguments:
    native = getattr(model.config, "image_size", None)
    native = (native, native) if isinstance(native, int) else native
    is_resized = native and tuple(native) != tuple(pixels.shape[-2:])
    resize = {"interpolate_pos_encoding": True} if is_resized and _interpolates(model.__class__.forward) else {}
    return {"pixel_values": pixels, **resize}


@cache  # a signature takes longer to inspect than a small block to run
def _interpolates(forward: Callable[..., Any]) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(forward).parameters


def _as_they_are(model: PreTrainedModel, states: Tensor, batch: int, stage: int | None) -> Tensor:
    return states


@dataclass(frozen=True)
class InputFormat:
    """The form in which a family takes images and gives states.

    Args:
        arguments: (model, pixels `(B, channels, H, W)`) -> keyword arguments of its `forward`.
        states: (model, raw states, B, number of the stage or `None`) -> states as `TokenLayout.split` takes them.
    """

    arguments: Callable[[PreTrainedModel, Tensor], Arguments] = _images
    states: Callable[[PreTrainedModel, Tensor, int, int | None], Tensor] = _as_they_are

    def run(self, model: PreTrainedModel, pixels: Tensor) -> Tensor:
        """The model's own last state; of a backbone-only model, its last feature map."""
        output = model(**self.arguments(model, pixels))
        last = getattr(output, "last_hidden_state", None)
        return output.feature_maps[-1] if last is None else last


def _hidden_states(model: PreTrainedModel, pixels: Tensor) -> Arguments:
    return {"hidden_states": pixels}


def _clip_of_all_frames(model: PreTrainedModel, pixels: Tensor) -> Arguments:
    # Its position table has a fixed number of frames.
    return {"pixel_values": pixels[:, None].expand(-1, model.config.num_frames, -1, -1, -1)}


def _average_over_time(model: PreTrainedModel, states: Tensor, batch: int, stage: int | None) -> Tensor:
    steps = model.config.num_frames // model.config.tubelet_size
    return states.unflatten(1, (steps, -1)).mean(dim=1)


def _shortest_clip(model: PreTrainedModel, pixels: Tensor) -> Arguments:
    clip = pixels[:, None].expand(-1, model.config.tubelet_size, -1, -1, -1)
    return {"pixel_values_videos": clip, "skip_predictor": True}


def _patch_vectors(model: PreTrainedModel, pixels: Tensor) -> Arguments:
    patch = model.config.patch_size
    batch, _, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cells = pixels[..., : rows * patch, : columns * patch].unflatten(-1, (columns, patch)).unflatten(-3, (rows, patch))
    return {
        "pixel_values": cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),  # (B, N, patch * patch * channels)
        "pixel_attention_mask": torch.ones(batch, rows * columns, dtype=torch.long, device=pixels.device),
        "spatial_shapes": torch.tensor([[rows, columns]], device=pixels.device).expand(batch, -1),
    }


def _sized_images(model: PreTrainedModel, pixels: Tensor) -> Arguments:
    return {"pixel_values": pixels, "image_sizes": torch.tensor([pixels.shape[-2:]]).expand(pixels.shape[0], -1)}


def _unpacked(model: PreTrainedModel, states: Tensor, batch: int, stage: int | None) -> Tensor:
    return states.unflatten(1, (batch, -1))[0]


def _raster_order(model: PreTrainedModel, states: Tensor, batch: int, stage: int | None) -> Tensor:
    return states if stage is None else model.encoder.reroll(states, stage).flatten(1, 2)


def _channels_last(model: PreTrainedModel, states: Tensor, batch: int, stage: int | None) -> Tensor:
    return states.flatten(1, 2)


FORMATS = {
    "florence_vision": InputFormat(arguments=_hidden_states),
    "hiera": InputFormat(states=_raster_order),
    "pixtral": InputFormat(_sized_images, _unpacked),
    "sam2_hiera_det_model": InputFormat(states=_channels_last),
    "sam2_vision_model": InputFormat(states=_channels_last),
    "siglip2_vision_model": InputFormat(arguments=_patch_vectors),
    "videomae": InputFormat(_clip_of_all_frames, _average_over_time),
    "vjepa2": InputFormat(arguments=_shortest_clip),
}

# Families of vision models that give no patch tokens of a still image, or not in a form that can be read.
REFUSED = {
    "bridgetower_vision_model": "its states come as one stack of all layers; use the CLIP tower in it",
    "dinat": "it needs the package natten; use Swin or ConvNeXt",
    "gemma4_vision": "it pools patches and packs the batch; use the SigLIP tower it descends from",
    "groupvit_vision_model": "its tokens are groups, no patches; use CLIP",
    "imagegpt": "it reads colour clusters one after the other; use MAE",
    "llama4_vision_model": "its output is shuffled and projected patches of tiles; use a CLIP or MetaCLIP tower",
    "lw_detr_vit": "its states are cut into windows; use the DINOv2 or ViT it was trained from",
    "maskformer-swin": "it is an inner part of MaskFormer; use Swin",
    "mllama_vision_model": "it takes tiles with aspect-ratio ids; use a CLIP tower",
    "molmo2_vision": "it takes images cut into patches; use SigLIP 2",
    "phi4_multimodal_vision": "it needs a patch mask of its language model; use SigLIP",
    "step3p5_vision": "its output is downsampled twice; use a CLIP tower",
    "swin2sr": "it restores images and keeps every pixel; use Swin V2",
    "timesformer": "it orders tokens by patch and then by time; use VideoMAE or V-JEPA 2",
    "videoprism_vision_model": "its time and space stacks cannot be read one by one; use VideoMAE or V-JEPA 2",
    "vivit": "its cls token spans a clip of many frames; use VideoMAE or V-JEPA 2",
    "xclip_vision_model": "it folds frames into the batch; use CLIP",
}


def format_of(config: PreTrainedConfig) -> InputFormat:
    """How images enter the backbone of `config`."""
    return FORMATS.get(config.model_type, InputFormat())


def check_readable(config: PreTrainedConfig) -> None:
    """Check that the family gives image tokens.

    Raises:
        ValueError: If it does not; the text says why, and what would work.
    """
    if config.model_type in REFUSED:
        raise ValueError(f"The backbone type {config.model_type!r} cannot be read: {REFUSED[config.model_type]}.")
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"The backbone type {config.model_type!r} is a detector or another encoder-decoder: its last states are no "
            "image tokens; use the vision backbone inside it."
        )
