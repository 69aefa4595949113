"""At which depth a probe over several layers looks, as in the heat maps of ALF (arXiv 2601.09322)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attentive_probes.assets import EMBEDDED_PREFIX
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.evaluation.predictions.image_pixels import check_processor, pixels_of
from attentive_probes.evaluation.predictions.read_split import read_split
from attentive_probes.probe.making.describe import layouts_of
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.tokens import Reading, TokenLayout


class LayerMap(NamedTuple):
    """Mean attention `(L, K)` over images and attention heads; rows are taps in reading order, columns kinds of token.

    All entries together sum to 1; a kind that is not read at a tap is 0 there.
    """

    taps: tuple[str, ...]
    kinds: tuple[str, ...]
    attention: Tensor


class LayerRow(NamedTuple):
    """One row of a picture: the layer map of a probe.

    Args:
        probe: Its name.
        model: Its backbone.
        dataset: The data that it looked at.
        label: Name of the class that these show; `None` for all of them.
        num_images: Number of images.
        num_heads: Number of attention heads M.
        map: Where it looks.
    """

    probe: str
    model: str
    dataset: str
    label: str | None
    num_images: int
    num_heads: int
    map: LayerMap


def by_layer(reading: Reading, values: Tensor, layouts: Mapping[str, TokenLayout]) -> tuple[tuple[str, ...], Tensor]:
    """Kinds of token K, and the sums `(L, K)` of values `(T,)` of tokens by tap, in reading order, and kind.

    Args:
        reading: What the tokens are.
        values: One for each token.
        layouts: How many tokens there are at each tap.
    """
    kinds = tuple(dict.fromkeys(item.kind for item in reading.items))
    parts, table = reading.split(values, layouts), torch.zeros(len(reading.taps), len(kinds))
    for item in reading.items:
        table[reading.taps.index(item.tap), kinds.index(item.kind)] += parts[str(item)].sum()
    return kinds, table


class LayerSums:
    """Adds up the attention of a probe by tap and kind of token, over all images and by class, batch by batch.

    Args:
        probe: A probe, usually one that reads several taps.
    """

    def __init__(self, probe: ProbeForImageClassification):
        self.reading, self.layouts = probe.head.reading, layouts_of(probe.config, probe.head.reading)
        self.num_heads, self._sums = 0, dict[int | None, Tensor]()
        self.counts: dict[int | None, int] = {}

    def add(self, attention: Tensor, labels: Tensor | None = None) -> None:
        """Add attention `(B, M, T)`, and what the images show: class ids `(B,)`, or 1 for each class that is there."""
        self.num_heads, means = attention.shape[1], attention.mean(dim=1).double()  # (B, T)
        self._add(None, means)
        if labels is not None:
            rows = F.one_hot(labels, int(labels.max()) + 1) if labels.ndim == 1 else labels > 0
            for label in rows.sum(0).nonzero().flatten().tolist():
                self._add(label, means[rows[:, label].bool()])

    def result(self, label: int | None = None) -> LayerMap:
        """The mean over all images, or over those of a class.

        Raises:
            ValueError: If there is no such image.
        """
        if label not in self._sums:
            raise ValueError("There is no image to look at.")
        values = (self._sums[label] / self.counts[label]).float()
        return LayerMap(self.reading.taps, *by_layer(self.reading, values, self.layouts))

    @property
    def labels(self) -> list[int]:
        """The classes that were seen."""
        return sorted(label for label in self.counts if label is not None)

    def _add(self, label: int | None, means: Tensor) -> None:
        total = means.sum(0).cpu()
        self._sums[label] = self._sums[label] + total if label in self._sums else total
        self.counts[label] = self.counts.get(label, 0) + len(means)


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
    check_processor(probe)
    was_training, sums = probe.training, LayerSums(probe)
    probe.eval()
    stream = iter(images)
    while batch := list(islice(stream, batch_size)):
        opened = [open_image(image, "to look at", num_channels=probe.backbone.num_channels) for image in batch]
        sums.add(probe(pixels_of(probe, opened)).attention)
    probe.train(was_training)
    return sums.result()


def layer_rows(
    probes: Mapping[str, ProbeForImageClassification],
    dataset: Any,
    data: str,
    images: ImageOptions | None = None,
    *,
    by_class: bool = False,
    batch_size: int = 64,
) -> list[LayerRow]:
    """Where probes on one backbone look over a labelled split, and over the images of each class.

    Args:
        probes: Name -> probe, usually one that reads several taps.
        dataset: The split, as `evaluation_loader` takes it.
        data: What it is called.
        images: Columns, and the policy for unreadable images.
        by_class: Whether classes have rows of their own.
        batch_size: Images per batch.

    Raises:
        ValueError: If the data do not fit the probes, or have no classes.
    """
    if by_class and not all(probe.config.problem.has_classes for probe in probes.values()):
        raise ValueError("Targets of a regression have no classes to tell apart.")
    sums = {name: LayerSums(probe) for name, probe in probes.items()}
    for batch in read_split(probes, dataset, images, batch_size=batch_size):
        for name, probe in probes.items():
            with torch.no_grad():
                attention = probe.head(batch.sequences[name]).attention
            sums[name].add(attention, batch.labels if by_class else None)
    return [row for name, probe in probes.items() for row in _rows_of(sums[name], probe, name, data)]


def _rows_of(sums: LayerSums, probe: ProbeForImageClassification, name: str, data: str) -> list[LayerRow]:
    model = Path(probe.config.backbone_name_or_path or probe.config.backbone_class or "backbone").name
    names = (name, model.removeprefix(EMBEDDED_PREFIX), data.removeprefix(EMBEDDED_PREFIX))
    return [
        LayerRow(
            *names,
            probe.config.id2label.get(label) if label is not None else None,
            sums.counts[label],
            sums.num_heads,
            sums.result(label),
        )
        for label in (None, *sums.labels)
    ]
