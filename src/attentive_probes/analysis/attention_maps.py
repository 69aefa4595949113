"""Attention over tokens as maps over the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attentive_probes.modeling_probe import ProbeForImageClassification


def patch_attention(probe: ProbeForImageClassification, attention: Tensor) -> Tensor:
    """The part of a probe's attention `(B, M, T)` that lies on patches, on their grid: `(B, M, rows, columns)`.

    Raises:
        ValueError: If the probe reads no patch tokens.
    """
    parts = probe.head.reading.split(attention, probe.config.token_layout)
    patches = [part for item, part in parts.items() if item.startswith("patches")]
    if not patches:
        raise ValueError(f"The probe reads {list(parts)}, no patches, so its attention has no place in the image.")
    return torch.stack(patches).sum(0).unflatten(-1, probe.config.token_layout.grid)


@torch.no_grad()
def attention_heatmap(probe: ProbeForImageClassification, image: Image.Image) -> Tensor:
    """Where each query of a probe looks in an image: `(M, H, W)` in the pixels of the probe's input.

    Each map is the attention per patch, interpolated; on the patch grid it sums to 1 (less, if other tokens are read).

    Raises:
        ValueError: If the probe has no image processor or reads no patch tokens.
    """
    if probe.image_processor is None:
        raise ValueError("The probe has no image processor; set probe.image_processor.")
    pixels = probe.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"].to(probe.device)
    was_training = probe.training
    attention = probe.eval()(pixels).attention
    probe.train(was_training)
    maps = patch_attention(probe, attention)
    return F.interpolate(maps, size=tuple(pixels.shape[-2:]), mode="bilinear")[0].cpu()
