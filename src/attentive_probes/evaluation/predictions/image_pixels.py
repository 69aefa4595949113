"""From opened images to the pixels of a probe: the one way, for predictions, embeddings, maps and explanations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor

from attentive_probes.probe.modeling_probe import ProbeForImageClassification


def check_processor(probe: ProbeForImageClassification) -> None:
    """Check that a probe can read images.

    Raises:
        ValueError: If it has no image processor.
    """
    if probe.image_processor is None:
        raise ValueError("The probe has no image processor; set probe.image_processor.")


def pixels_of(probe: ProbeForImageClassification, images: Iterable[Image.Image]) -> Tensor:
    """Pixels `(B, C, H, W)` of opened images as the processor of a probe gives them, on the device of the probe.

    Images are processed one by one, so that an iterator that opens them holds one photograph at a time.

    Raises:
        ValueError: If the probe has no image processor.
    """
    check_processor(probe)
    assert probe.image_processor is not None
    parts = [probe.image_processor([image], return_tensors="pt")["pixel_values"] for image in images]
    return torch.cat(parts).to(probe.device)
