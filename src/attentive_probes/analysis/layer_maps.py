"""At which depth a probe over several layers looks, as in the heat maps of ALF (arXiv 2601.09322)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.setup import layouts_of


class LayerMap(NamedTuple):
    """Mean attention `(L, K)` over images and attention heads; rows are taps in reading order, columns kinds of token.

    All entries together sum to 1; a kind that is not read at a tap is 0 there.
    """

    taps: tuple[str, ...]
    kinds: tuple[str, ...]
    attention: Tensor


@torch.no_grad()
def layer_heatmap(probe: ProbeForImageClassification, images: Iterable[Image.Image], batch_size: int = 64) -> LayerMap:
    """Average the attention of a probe over images, and sum it per tap and kind of token.

    Args:
        probe: A probe with an image processor, usually one that reads several taps.
        images: What to look at; any number, for instance a whole test split.
        batch_size: Images per forward pass.

    Raises:
        ValueError: If the probe has no image processor, or there is no image.
    """
    if probe.image_processor is None:
        raise ValueError("The probe has no image processor; set probe.image_processor.")
    was_training, total, count = probe.training, torch.zeros(()), 0
    probe.eval()
    stream = iter(images)
    while batch := list(islice(stream, batch_size)):
        rgb = [image.convert("RGB") for image in batch]
        pixels = probe.image_processor(rgb, return_tensors="pt")["pixel_values"].to(probe.device)
        total = total + probe(pixels).attention.mean(dim=1).sum(dim=0).cpu()  # (T,)
        count += len(batch)
    probe.train(was_training)
    if count == 0:
        raise ValueError("There is no image to look at.")
    return _by_layer(probe, total / count)


def _by_layer(probe: ProbeForImageClassification, attention: Tensor) -> LayerMap:
    reading = probe.head.reading
    parts = reading.split(attention, layouts_of(probe.config, reading))
    kinds = tuple(dict.fromkeys(item.kind for item in reading.items))
    table = torch.zeros(len(reading.taps), len(kinds))
    for item in reading.items:
        table[reading.taps.index(item.tap), kinds.index(item.kind)] += parts[str(item)].sum()
    return LayerMap(reading.taps, kinds, table)
