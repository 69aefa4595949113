"""From examples to batches of pixel values, with augmentation that depends on nothing but seed, epoch and image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor

from attentive_probes.backbones import MODES, RAW, Backbone, PixelNormalization
from attentive_probes.data.augment import Augmentation
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import Example
from attentive_probes.data.token_cache import BlockShuffle, TokenCache


class Collator:
    """Turns examples into a batch: `pixel_values` `(B, 3, H, W)` and `labels`.

    The view of an image depends on seed, epoch and its identity alone, not on workers, processes or batch size. In
    place of an image that cannot be read, a training batch repeats its neighbour; in evaluation the target says that it
    does not count.

    Args:
        split: Where the examples come from; encodes their labels.
        processor: The image processor; evaluation images pass through it untouched.
        size: Height and width in pixels of the input.
        augmentation: What is random; `None` for evaluation.
        seed: Seed of the augmentation.
        train: Whether batches are trained on.
        raw: Whether batches hold 8-bit pixels, a quarter of the bytes, which the backbone normalizes.
    """

    def __init__(
        self,
        split: ImageSplit | ImageStream,
        processor: BaseImageProcessor,
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        train: bool = False,
        raw: bool = False,
    ):
        self.name, self.encoder, self.num_channels = split.name, split.encoder, split.num_channels
        self.train, self.raw = train, raw
        self.processor, self.size, self.augmentation, self.seed = processor, size, augmentation, seed
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # worker processes live through all epochs

    @property
    def epoch(self) -> int:
        """Which views to draw."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch.fill_(value)

    def __call__(self, examples: list[Example]) -> dict[str, Any]:
        """Make a batch.

        Raises:
            ValueError: If no image of a training batch can be read.
        """
        examples = self._readable(examples)
        arguments = dict(RAW) if self.raw else {}
        images = [self._view(example) for example in examples]
        if self.augmentation is not None and self.augmentation.crop:  # the crop has the final size already
            arguments |= {"do_resize": False, "do_center_crop": False}
        pixels = self.processor(images, return_tensors="pt", **arguments)["pixel_values"]
        return {"pixel_values": pixels, "labels": self.encoder.batch([example.label for example in examples])}

    def _readable(self, examples: list[Example]) -> list[Example]:
        good = [example for example in examples if example.image is not None]
        if len(good) == len(examples):
            return examples
        if not self.train:
            blank = Image.new(MODES[self.num_channels], self.size[::-1])
            return [e if e.image is not None else Example(e.identity, blank, self.encoder.ignored()) for e in examples]
        if not good:
            raise ValueError(f"None of the {len(examples)} images of a {self.name} batch can be read.")
        filled, last = [], good[0]
        for example in examples:
            last = example if example.image is not None else last
            filled.append(last)
        return filled

    def _view(self, example: Example) -> Image.Image:
        assert example.image is not None
        if self.augmentation is None:
            return example.image
        rng = np.random.default_rng((self.seed, self.epoch, example.identity))
        resample = getattr(self.processor, "resample", None)
        filter_ = Image.Resampling.BICUBIC if resample is None else Image.Resampling(int(resample))
        return self.augmentation(example.image, self.size, rng, filter_)


def make_collator(
    split: ImageSplit | ImageStream,
    processor: BaseImageProcessor,
    backbone: Backbone,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    train: bool = False,
) -> Collator:
    """The collator of a split for a backbone, which is told how to normalize raw pixels if the processor allows it."""
    backbone.normalization = PixelNormalization.of(processor, backbone.num_channels)
    raw = backbone.normalization is not None
    return Collator(split, processor, backbone.geometry.image_size, augmentation, seed, train, raw)


def make_loader(
    split: ImageSplit | ImageStream,
    collator: Collator,
    batch_size: int,
    *,
    train: bool,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader:
    """A loader of batches; in training it shuffles.

    Args:
        split: The examples; a stream is read in its own order.
        collator: Makes the batches.
        batch_size: Images per batch, over all processes.
        train: Whether this is for training.
        drop_last: Whether training leaves out the last, incomplete batch, unless it is the only one.
        num_workers: Worker processes that decode.
    """
    fills_a_batch = isinstance(split, ImageStream) or len(split) >= batch_size
    return DataLoader(
        split,
        batch_size=batch_size,
        shuffle=train and isinstance(split, ImageSplit),
        drop_last=train and drop_last and fills_a_batch,
        collate_fn=collator,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the model takes of a batch: everything but the labels."""
    return {key: value for key, value in batch.items() if key != "labels"}


def make_cached_loader(
    cache: TokenCache, batch_size: int, *, train: bool, drop_last: bool = True, seed: int = 0
) -> DataLoader:
    """A loader of cached tokens; from a disk, training reads blocks in random order and mixes within windows of them.

    Args:
        cache: The tokens.
        batch_size: Images per batch, over all processes.
        train: Whether this is for training.
        drop_last: Whether training leaves out the last, incomplete batch, unless it is the only one.
        seed: Seed of the order of blocks.
    """
    in_blocks = train and cache.keep == "disk"
    return DataLoader(
        cache,
        batch_size=batch_size,
        shuffle=train and not in_blocks,
        sampler=BlockShuffle(len(cache), lambda: cache.epoch, seed) if in_blocks else None,
        drop_last=train and drop_last and len(cache) >= batch_size,
        collate_fn=_as_it_is,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
