"""From examples to batches of pixel values, with augmentation that depends on nothing but seed, epoch and image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor

from attentive_probes.backbones import MODES, RAW, Backbone, PixelNormalization
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import Example
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.steps import Batch, StepLoader, StepPlan
from attentive_probes.data.token_cache import TokenCache


class Collator:
    """Turns examples into a batch: `pixel_values` `(B, 3, H, W)`, `labels`, and `rows`, the identities of the images.

    The view of an image depends on seed, epoch and its identity alone, not on workers, processes or batch size. An
    image that cannot be read is left out; a batch of no image is one of length 0.

    Args:
        split: Where the examples come from; encodes their labels.
        processor: The image processor; evaluation images pass through it untouched.
        size: Height and width in pixels of the input.
        augmentation: What is random; `None` for evaluation.
        seed: Seed of the augmentation.
        raw: Whether batches hold 8-bit pixels, a quarter of the bytes, which the backbone normalizes.
    """

    def __init__(
        self,
        split: ImageSplit | ImageStream,
        processor: BaseImageProcessor,
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        raw: bool = False,
    ):
        self.encoder, self.num_channels, self.raw = split.encoder, split.num_channels, raw
        self.processor, self.size, self.augmentation, self.seed = processor, size, augmentation, seed
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # worker processes live through all epochs

    @property
    def epoch(self) -> int:
        """Which views to draw."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch.fill_(value)

    def __call__(self, examples: list[Example]) -> Batch:
        """Make a batch of the views of the current epoch."""
        return self.collate(examples, self.epoch)

    def collate(self, examples: list[Example], epoch: int) -> Batch:
        """Make a batch of the views of an epoch."""
        examples = [example for example in examples if example.image is not None]
        images = [self._view(example, epoch) for example in examples]
        if not images:  # of the right shape and type: what a blank image gives, cut to nothing
            images = [Image.new(MODES[self.num_channels], self.size[::-1])]
        arguments = dict(RAW) if self.raw else {}
        if self.augmentation is not None and self.augmentation.crop:  # the crop has the final size already
            arguments |= {"do_resize": False, "do_center_crop": False}
        pixels = self.processor(images, return_tensors="pt", **arguments)["pixel_values"]
        labels = self.encoder.batch([example.label for example in examples])
        rows = torch.tensor([example.identity for example in examples], dtype=torch.long)
        return {"pixel_values": pixels[: len(examples)], "labels": labels, "rows": rows}

    def _view(self, example: Example, epoch: int) -> Image.Image:
        assert example.image is not None
        if self.augmentation is None:
            return example.image
        rng = np.random.default_rng((self.seed, epoch, example.identity))
        resample = getattr(self.processor, "resample", None)
        filter_ = Image.Resampling.BICUBIC if resample is None else Image.Resampling(int(resample))
        return self.augmentation(example.image, self.size, rng, filter_)


def make_collator(
    split: ImageSplit | ImageStream,
    processor: BaseImageProcessor,
    backbone: Backbone,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> Collator:
    """The collator of a split for a backbone, which is told how to normalize raw pixels if the processor allows it."""
    backbone.normalization = PixelNormalization.of(processor, backbone.num_channels)
    raw = backbone.normalization is not None
    return Collator(split, processor, backbone.geometry.image_size, augmentation, seed, raw)


def make_loader(
    split: ImageSplit | ImageStream,
    collator: Collator,
    plan: StepPlan,
    *,
    train: bool,
    seed: int = 0,
    num_workers: int = 0,
) -> StepLoader:
    """A loader of images, step by step.

    Args:
        split: The examples; a stream is read in its own order.
        collator: Makes the batches; its epoch is that of the loader.
        plan: How images become steps.
        train: Whether this is for training, where a held split is shuffled.
        seed: Seed of the order.
        num_workers: Worker processes that decode.
    """

    def order() -> Sequence[int]:
        assert isinstance(split, ImageSplit)  # a stream has its own
        return shuffled(len(split), seed, collator.epoch) if train else range(len(split))

    return StepLoader(split, collator, plan, order, num_workers)


def make_cached_loader(
    cache: TokenCache, plan: StepPlan, *, train: bool, seed: int = 0, places: np.ndarray | None = None
) -> StepLoader:
    """A loader of cached tokens, step by step.

    From a disk, training reads blocks in random order and mixes within windows of them. Arguments as in `make_loader`,
    and `places` `(K,)`, the images to read, in order; by default all.
    """
    is_read = np.isin(np.arange(len(cache)), np.arange(len(cache)) if places is None else places)

    def order() -> Sequence[int]:
        if not train:
            return range(len(cache)) if places is None else places.tolist()
        drawn = cache.in_blocks(seed) if cache.keep == "disk" else shuffled(len(cache), seed, cache.epoch)
        return drawn if places is None else [row for row in drawn if is_read[row]]

    return StepLoader(cache, cache, plan, order, num_images=None if places is None else len(places))


def shuffled(num_images: int, seed: int, epoch: int) -> list[int]:
    """A random order of the rows of a split; different seeds have no order in common, whatever the epochs."""
    spread = (seed * 0x9E3779B97F4A7C15 + epoch) % 2**63  # multiples of 2^64 / phi lie far apart
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(spread)).tolist()


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the model takes of a batch: pixels or tokens."""
    return {key: value for key, value in batch.items() if key not in ("labels", "rows")}
