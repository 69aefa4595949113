"""Raw 8-bit pixels travel, and become numbers on the device: the last step of an image processor, where it is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from attentive_probes.backbones.processors import MODES

# What an image processor is told so that it stops at 8-bit pixels.
RAW = {"do_rescale": False, "do_normalize": False}


@dataclass(frozen=True)
class PixelNormalization:
    """Rescaling and normalization, channel by channel: `pixels * scale + shift`."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def of(cls, processor: BaseImageProcessor, num_channels: int = 3) -> PixelNormalization | None:
        """The normalization that `processor` ends with, or `None` if it does not end with one on 8-bit pixels.

        Found by processing two flat images, and tried on an image of noise.
        """
        images = _trial_images(MODES[num_channels])
        try:
            raw = [_process(processor, image, **RAW) for image in images]
            whole = [_process(processor, image) for image in images]
        except (ValueError, TypeError, KeyError):
            return None
        if any(pixels.dtype != torch.uint8 or pixels.ndim != 4 for pixels in raw):
            return None
        means = [[pixels.double().mean((0, 2, 3)) for pixels in parts[:2]] for parts in (raw, whole)]
        scale = (means[1][1] - means[1][0]) / (means[0][1] - means[0][0])
        shift = means[1][0] - scale * means[0][0]
        found = cls(tuple(scale.tolist()), tuple(shift.tolist()))
        return found if torch.allclose(found(raw[2]), whole[2].float(), atol=1e-4, rtol=0) else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Numbers `(B, channels, H, W)`, float32, of 8-bit pixels."""
        scale, shift = (_on_device(values, pixels.device) for values in (self.scale, self.shift))
        return torch.addcmul(shift, pixels.float(), scale)


@lru_cache(maxsize=32)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers by channel, `(channels, 1, 1)`, made once per device: making them waits for a GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=torch.float32)[:, None, None]


def _trial_images(mode: str) -> list[Image.Image]:
    bands = len(mode)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, bands), dtype=np.uint8)
    flat = [np.full((60, 80, bands), value, np.uint8) for value in (0, 255)]
    return [Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels) for pixels in (*flat, noise)]


def _process(processor: BaseImageProcessor, image: Image.Image, **arguments: bool) -> Tensor:
    return processor([image], return_tensors="pt", **arguments)["pixel_values"]
