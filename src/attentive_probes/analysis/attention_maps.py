"""Attention over tokens as maps over the image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attentive_probes.data.pixels.decode import open_image
from attentive_probes.evaluation.predictions.image_pixels import pixels_of
from attentive_probes.probe.making.describe import layouts_of
from attentive_probes.probe.modeling_probe import ProbeForImageClassification


def patch_attention(probe: ProbeForImageClassification, attention: Tensor) -> Tensor:
    """The part of a probe's attention `(B, M, T)` that lies on patches, on their grid: `(B, M, rows, columns)`.

    Where several taps are read, their parts add up, on the finest grid among them.

    Raises:
        ValueError: If the probe reads no patch tokens.
    """
    reading = probe.head.reading
    layouts = layouts_of(probe.config, reading)
    parts = reading.split(attention, layouts)
    maps = [parts[str(item)].unflatten(-1, layouts[item.tap].grid) for item in reading.items if item.kind == "patches"]
    if not maps:
        raise ValueError(f"The probe reads {list(parts)}, no patches, so its attention has no place in the image.")
    finest = max((tuple(part.shape[-2:]) for part in maps), key=math.prod)
    shares = [F.interpolate(part, finest, mode="nearest") * part[0, 0].numel() / math.prod(finest) for part in maps]
    return torch.stack(shares).sum(0)


@torch.no_grad()
def attention_heatmap(probe: ProbeForImageClassification, image: Image.Image) -> Tensor:
    """Where each query of a probe looks in an image: `(M, H, W)` in the pixels of the probe's input.

    Each map is the attention per patch, interpolated; on the patch grid it sums to 1 (less, if other tokens are read).

    Raises:
        ValueError: If the probe has no image processor or reads no patch tokens.
    """
    opened = open_image(image, "to look at", num_channels=probe.backbone.num_channels)
    pixels = pixels_of(probe, [opened])
    was_training = probe.training
    attention = probe.eval()(pixels).attention
    probe.train(was_training)
    maps = patch_attention(probe, attention)
    return F.interpolate(maps, size=tuple(pixels.shape[-2:]), mode="bilinear")[0].cpu()
