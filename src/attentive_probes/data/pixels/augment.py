"""Training augmentation on PIL images: a random resized crop, a flip, and whatever else is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from attentive_probes.checks import POSITIVE
from attentive_probes.data.pixels.transforms import seeded_transform


@dataclass
class Augmentation:
    """What is random about a training image.

    Args:
        crop: Random resized crop. A single draw of area and aspect ratio, clipped to the image, as in the EP paper's
            recipe; `torchvision` instead redraws up to ten times.
        crop_scale: Smallest and largest area of the crop, as a share of the image.
        crop_ratio: Smallest and largest aspect ratio of the crop (width / height).
        flip: Horizontal flip with probability one half.
        transform: What happens to the cropped and flipped image, in its final size: name of a torchvision policy
            (`trivial_augment`, `rand_augment`, `auto_augment`, `aug_mix`), a file written by `albumentations.save`, or
            in Python any callable from image to image.

    Raises:
        ValueError: If a range is empty or not positive, or the transform is unknown or its library is not installed.
    """

    crop: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    transform: Any = None

    def __post_init__(self) -> None:
        for name in ("crop_scale", "crop_ratio"):
            value = tuple(getattr(self, name))
            if len(value) != 2 or not all(one in POSITIVE for one in value) or value[0] > value[1]:
                raise ValueError(f"{name} is {value}; it must be two positive numbers, the smaller one first.")
            setattr(self, name, value)
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is {self.crop_scale}; a crop cannot cover more than the image, 1.0.")
        self._further = None if self.transform is None else seeded_transform(self.transform)

    def describe(self) -> list[str]:
        """Everything that its views depend on beside their seed."""
        return [repr(self), repr(self._further)]

    def __call__(
        self,
        image: Image.Image,
        size: tuple[int, int],
        rng: np.random.Generator,
        resample: Image.Resampling = Image.Resampling.BICUBIC,
    ) -> Image.Image:
        """Draw one view of an image.

        Args:
            image: RGB image.
            size: Height and width in pixels of a cropped view; without a crop the image keeps its size.
            rng: Source of randomness.
            resample: Filter of the resize.
        """
        if self.crop:
            image = image.resize((size[1], size[0]), resample, box=self._box(image.size, rng))
        if self.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._further is None:
            return image
        view = self._further(image, int(rng.integers(2**31)))
        if view.size != image.size:
            raise ValueError(f"The transform changed the image size from {image.size} to {view.size}; keep it.")
        return view

    def _box(self, image_size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        width, height = image_size
        area = width * height * rng.uniform(*self.crop_scale)
        ratio = math.exp(rng.uniform(math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1])))
        w = min(max(round(math.sqrt(area * ratio)), 1), width)
        h = min(max(round(math.sqrt(area / ratio)), 1), height)
        left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        return left, top, left + w, top + h


DEFAULT_AUGMENTATION = Augmentation()
