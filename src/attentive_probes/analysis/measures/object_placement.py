"""Where the input of a backbone lies in an image: resize, crop and padding undone, whatever processor did them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from attentive_probes.backbones import MODES

EDGE = 0.03  # of a side, at its ends, where filters run over the border


class Placement(NamedTuple):
    """The rectangle of an image that the input covers, in pixels of the image; beyond it where there is padding.

    Args:
        left: Of the input's left edge.
        top: Of its upper edge.
        right: Of its right edge.
        bottom: Of its lower edge.
        size: Width and height of the image.
    """

    left: float
    top: float
    right: float
    bottom: float
    size: tuple[int, int]


def placement_of(processor: BaseImageProcessor, size: tuple[int, int], num_channels: int = 3) -> Placement:
    """Find where the input lies by what the processor makes of two ramps of grey, beside black and white.

    Args:
        processor: The image processor.
        size: Width and height of the image.
        num_channels: Channels that it takes.

    Raises:
        ValueError: If the input is no part of the image, upright.
    """
    width, height = size
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    greys = (np.zeros_like(x), np.ones_like(x), x, y)
    images = [Image.fromarray(np.round(255 * grey).astype(np.uint8)).convert(MODES[num_channels]) for grey in greys]
    black, white, across, down = (
        processor([one], return_tensors="pt")["pixel_values"][0, 0].double() for one in images
    )
    span = white - black
    is_image = span.abs() > 1e-3  # the rest is padding
    if not is_image.any():
        raise ValueError(f"The image processor shows nothing of an image of {width} x {height} pixels.")
    left, right = _edges(torch.where(is_image, (across - black) / span, torch.nan), 1)
    top, bottom = _edges(torch.where(is_image, (down - black) / span, torch.nan), 0)
    return Placement(left * width, top * height, right * width, bottom * height, size)


def _edges(shares: Tensor, dim: int) -> tuple[float, float]:
    """Where an axis of the input begins and ends, as shares of the image, by a line through the ramp it shows."""
    count = shares.shape[dim]
    found = shares.nanmean(dim=1 - dim)
    is_inner = (found > EDGE) & (found < 1 - EDGE)
    if is_inner.sum() < 2:
        is_inner = found.isfinite()
    places = (torch.arange(count, dtype=torch.float64) + 0.5)[is_inner]
    if len(places) < 2:
        raise ValueError("The image processor makes an input of a single pixel of an image; its maps have no place.")
    slope, start = np.polyfit(places.numpy(), found[is_inner].numpy(), 1)
    if slope <= 0:
        raise ValueError("The image processor turns images around; its maps cannot be laid over them.")
    return float(start), float(start + slope * count)


def over_image(maps: Tensor, placement: Placement, size: tuple[int, int] | None = None) -> Tensor:
    """Maps over the patches of an input, laid over the image: `(M, height, width)`, NaN where the backbone saw nothing.

    Args:
        maps: `(M, rows, columns)`; the patches cover the input.
        placement: Where the input lies.
        size: Width and height to draw the image in; by default its own.
    """
    width, height = placement.size if size is None else size
    x = (torch.arange(width) + 0.5) * placement.size[0] / width
    y = (torch.arange(height) + 0.5) * placement.size[1] / height
    x = 2 * (x - placement.left) / (placement.right - placement.left) - 1
    y = 2 * (y - placement.top) / (placement.bottom - placement.top) - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    found = F.grid_sample(maps[None].float(), grid.float(), "bilinear", "border", align_corners=False)[0]
    return torch.where((grid[0].abs() <= 1).all(-1), found, torch.nan)
