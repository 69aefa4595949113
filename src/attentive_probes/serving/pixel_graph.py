"""An image processor as a part of the graph: resize, crop, rescale and normalize 8-bit images of any size.

Resizing is a product with a matrix from the left and one from the right, as Pillow computes it: each row holds the
weights of the old pixels for a new one, and both passes end in whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BaseImageProcessor

from attentive_probes.backbones.pixels import PixelNormalization
from attentive_probes.backbones.processors import MODES


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    a, x = -0.5, x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    def sinc(t: Tensor) -> Tensor:
        t = t * math.pi
        return torch.where(t == 0, torch.ones_like(t), t.sin() / torch.where(t == 0, torch.ones_like(t), t))

    return torch.where(x.abs() < 3, sinc(x) * sinc(x / 3), torch.zeros_like(x))


FILTERS: dict[int, Callable[[Tensor], Tensor]] = {
    int(Image.Resampling.BILINEAR): _triangle,
    int(Image.Resampling.BICUBIC): _cubic,
    int(Image.Resampling.LANCZOS): _lanczos,
}
# Sizes of images on which the graph is compared with the processor: usual ones, and as long as a panorama.
TRIALS = ((61, 83), (240, 131), (300, 300), (40, 900), (1100, 50))
KNOWN = (  # what is understood of a processor; whatever else is set in one is refused
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb", "default_to_square", "data_format", "input_data_format",
    "image_processor_type", "processor_class", "return_tensors", "device", "disable_grouping", "_name_or_path",
)  # fmt: skip
SIZES = ({"shortest_edge"}, {"height", "width"})  # keys of `size` and `crop_size` that are understood


class PixelGraph(nn.Module):
    """What an image processor does to 8-bit images, as tensor operations.

    Args:
        target: Height and width of the result.
        resized: Height and width before the crop; or the length of the shorter edge; or `None` to leave the size.
        resample: Filter, as Pillow numbers it.
        normalization: The last step.
    """

    def __init__(
        self,
        target: tuple[int, int],
        resized: tuple[int, int] | int | None,
        resample: int,
        normalization: PixelNormalization,
    ):
        super().__init__()
        self.target, self.resized, self.filter = target, resized, FILTERS[resample]
        for name, values in (("scale", normalization.scale), ("shift", normalization.shift)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @classmethod
    def of(cls, processor: BaseImageProcessor | None, num_channels: int = 3) -> PixelGraph:
        """The graph of a processor, compared with it on images of several sizes.

        Raises:
            ValueError: If there is no image processor, or it has a step that cannot be exported.
        """
        if processor is None:
            raise ValueError("The probe has no image processor, so raw images cannot be read.")
        why = f"{type(processor).__name__} cannot become a part of the graph; export without `raw`, and run it before."
        normalization = PixelNormalization.of(processor, num_channels)
        if normalization is None:
            raise ValueError(why)
        _check_understood(processor, why)
        images = _trials(num_channels)
        expected = [processor([image], return_tensors="pt")["pixel_values"] for image in images]
        size, resample = getattr(processor, "size", None) or {}, int(getattr(processor, "resample", None) or 2)
        resized: Any = size.get("shortest_edge") or (size.get("height"), size.get("width"))
        resized = resized if getattr(processor, "do_resize", True) else None
        if resample not in FILTERS or (isinstance(resized, tuple) and None in resized):
            raise ValueError(why)
        graph = cls(tuple(expected[0].shape[-2:]), resized, resample, normalization)
        for image, wanted in zip(images, expected, strict=True):
            pixels = torch.from_numpy(np.array(image)).reshape(1, image.height, image.width, num_channels)
            level = graph.scale.abs() * 1.01  # type: ignore[operator]  # a buffer
            if wanted.shape[-2:] != expected[0].shape[-2:] or ((graph(pixels) - wanted).abs() > level).any():
                raise ValueError(why)
        return graph

    def forward(self, images: Tensor) -> Tensor:
        """Numbers `(B, channels, H, W)` of raw images `(B, height, width, channels)`."""
        pixels = images.movedim(-1, 1).float()
        height, width = (_count(pixels, dim) for dim in (2, 3))
        rows, columns = self._resized(height, width)
        across = self._weights(width, columns, self.target[1], pixels.shape[3])
        down = self._weights(height, rows, self.target[0], pixels.shape[2])
        pixels = _whole(down @ _whole(pixels @ across.mT))
        return pixels * self.scale + self.shift  # type: ignore[operator]  # buffers

    def _resized(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        if self.resized is None:
            return height, width
        if isinstance(self.resized, int):
            short = torch.minimum(height, width)
            long_by_short = [torch.div(self.resized * n, short, rounding_mode="floor") for n in (height, width)]
            return long_by_short[0], long_by_short[1]
        return height.new_tensor(self.resized[0]), height.new_tensor(self.resized[1])

    def _weights(self, old: Tensor, new: Tensor, target: int, length: int) -> Tensor:
        """Weights `(target, length)` of the old pixels for those that the crop leaves of the new ones."""
        factor = old / new  # float32
        places = torch.arange(target, device=old.device) + torch.div(new - target, 2, rounding_mode="floor")
        centres = (places + 0.5) * factor
        distances = torch.arange(length, device=old.device) + 0.5 - centres[:, None]
        weights = self.filter(distances / factor.clamp(min=1))
        is_inside = (places >= 0) & (places < new)  # a crop larger than the image is filled with zeros
        return weights / weights.sum(1, keepdim=True).clamp(min=1e-6) * is_inside[:, None]


def _check_understood(processor: BaseImageProcessor, why: str) -> None:
    """Check that nothing is set in a processor that the graph does not do.

    Raises:
        ValueError: If something is; the text names it.
    """
    content = processor.to_dict()
    unknown = [f"{key}={value!r}" for key, value in content.items() if key not in KNOWN and value]
    for name, is_used in (("size", content.get("do_resize")), ("crop_size", content.get("do_center_crop"))):
        size = content.get(name)
        keys = {key for key, value in dict(size or {}).items() if value is not None}
        if is_used and keys and keys not in SIZES:
            unknown.append(f"{name}={dict(size)!r}")
    if unknown:
        raise ValueError(f"{why} It has {', '.join(unknown)[:200]}.")


def _count(pixels: Tensor, dim: int) -> Tensor:
    """The length of a dimension as a tensor, also where it is not known yet."""
    return torch.arange(pixels.shape[dim], device=pixels.device).amax(0) + 1


def _whole(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor().clamp(0, 255)


def _trials(num_channels: int) -> list[Image.Image]:
    """Noise and smooth images."""
    draw = np.random.default_rng(0)
    found = []
    for height, width in TRIALS:
        noise = draw.integers(0, 256, (height, width, num_channels))
        smooth = np.linspace(0, 255, height)[:, None, None] * np.ones((1, width, num_channels))
        pixels = np.where(np.arange(width)[:, None] < width // 2, noise, smooth).astype(np.uint8)
        found.append(Image.fromarray(pixels.squeeze(-1) if num_channels == 1 else pixels, MODES[num_channels]))
    return found
