"""The frozen backbone behind every probe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from attentive_probes.backbones.layout import Geometry, find_geometry
from attentive_probes.backbones.load import build_model, load_model, resolution_arguments
from attentive_probes.backbones.taps import check_taps, read_taps
from attentive_probes.tokens import Tokens


class VisionBackbone(nn.Module):
    """A Hugging Face vision model as a source of tokens: no gradient, always in evaluation mode.

    Args:
        model: The vision model; its parameters are frozen here.
        geometry: Its token layout, layers and input size.
    """

    def __init__(self, model: PreTrainedModel, geometry: Geometry):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.geometry = geometry
        self._arguments = resolution_arguments(model, geometry.image_size)

    @classmethod
    def from_config(cls, config: PreTrainedConfig, geometry: Geometry | None = None) -> VisionBackbone:
        """A backbone with fresh weights; `geometry` defaults to that of the configured image size."""
        if geometry is None:
            geometry = find_geometry(config, image_size_of(config))
        return cls(build_model(config), geometry)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        config: PreTrainedConfig,
        geometry: Geometry,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        attn_implementation: str | None = None,
    ) -> VisionBackbone:
        """The backbone `name` with its pretrained weights.

        Raises:
            ValueError: If the weights cannot be found or are incomplete.
        """
        model = load_model(name, config, revision=revision, dtype=dtype, attn_implementation=attn_implementation)
        return cls(model, geometry)

    def train(self, mode: bool = True) -> VisionBackbone:
        """Stay in evaluation mode: a frozen backbone has no training mode."""
        return super().train(False)

    def forward(self, pixel_values: Tensor, taps: Sequence[str] = ("last",)) -> dict[str, Tokens]:
        """Tokens of images `(B, channels, H, W)` at the given taps.

        Raises:
            ValueError: If a tap is unknown or holds no tokens, or the images have another size than the probe was
                built for.
        """
        check_taps(taps, self.geometry.num_layers)
        size = tuple(pixel_values.shape[-2:])
        if size != self.geometry.image_size:
            raise ValueError(
                f"The images are {size} pixels, but this probe reads {self.geometry.image_size}; "
                "use the image processor saved with the probe."
            )
        with torch.no_grad():
            states = read_taps(self.model, pixel_values.to(self.model.dtype), taps, **self._arguments)
        for tap, state in states.items():
            if state.ndim != 3:
                raise ValueError(
                    f"The state at tap {tap!r} has shape {tuple(state.shape)}, no tokens; read another tap."
                )
        return {tap: self.geometry.tokens.split(state) for tap, state in states.items()}


def image_size_of(config: PreTrainedConfig, processor: BaseImageProcessor | None = None) -> tuple[int, int]:
    """Input size (height, width) in pixels: what the processor produces, else what the backbone was trained with.

    Raises:
        ValueError: If neither names a size.
    """
    if processor is not None and (size := processed_size(processor)):
        return size
    size = getattr(config, "image_size", None)
    if size is None:
        raise ValueError(
            f"The backbone type {config.model_type!r} names no image size; pass image_size=(height, width)."
        )
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def processed_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Size (height, width) in pixels of the images that a processor produces, if it is fixed."""
    for flag, key in (("do_center_crop", "crop_size"), ("do_resize", "size")):
        size = getattr(processor, key, None) if getattr(processor, flag, False) else None
        if size and "height" in size and "width" in size:
            return size["height"], size["width"]
    return None
