"""The image processor of a backbone: the stored one in its PIL form, else one built from the stored numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor, CLIPImageProcessorPil, PreTrainedConfig

from attentive_probes.backbones.load import resolve_source
from attentive_probes.files.untrusted import untrusted

Size = tuple[int, int]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels that a backbone reads -> mode of the images it is given
NUMBERS = ("do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


def load_image_processor(name: str, **hub_arguments: Any) -> BaseImageProcessor:
    """The image processor stored beside a backbone or a probe, in a form that needs no torchvision.

    Where transformers has no PIL class for it (DINOv3 and others), a plain one is built from the stored numbers.

    Args:
        name: Backbone name, Hub id or folder.
        **hub_arguments: `revision`, `token` and the like.

    Raises:
        ValueError: If the backbone comes without an image processor.
    """
    source = resolve_source(name)
    try:
        return AutoImageProcessor.from_pretrained(source, backend="pil", **hub_arguments)
    except OSError as error:
        raise ValueError(f"There is no image processor (preprocessor_config.json) beside {name!r}: {error}") from error
    except Exception:  # No PIL class, a processor of videos, or broken numbers.
        with untrusted(f"{name}, preprocessor_config.json,", "an image processor"):
            stored, _ = BaseImageProcessor.get_image_processor_dict(source, **hub_arguments)
            return plain_processor(stored)


def plain_processor(stored: dict[str, Any], num_channels: int = 3) -> BaseImageProcessor:
    """Resize, crop, rescale and normalize by the numbers of a `preprocessor_config.json`."""
    numbers = {key: stored[key] for key in NUMBERS if stored.get(key) is not None}
    crop = (
        _as_size(stored.get("crop_size"), square=True) if stored.get("do_center_crop", "crop_size" in stored) else None
    )
    size = _as_size(stored.get("size"), square=crop is None) or crop or {"shortest_edge": 224}
    options = {"do_center_crop": crop is not None, "do_convert_rgb": num_channels == 3}
    return CLIPImageProcessorPil(**numbers, size=size, crop_size=crop, **options)


def is_timm_processor(processor: BaseImageProcessor) -> bool:
    """Whether a processor needs timm and torchvision to work."""
    return type(processor).__name__ == "TimmWrapperImageProcessor"


def timm_processor(config: PreTrainedConfig) -> BaseImageProcessor:
    """The evaluation transform that a timm model was published with."""
    published = getattr(config, "pretrained_cfg", None) or {}
    _, height, width = published.get("input_size", (3, 224, 224))
    crop_share = published.get("crop_pct", 0.875)
    return CLIPImageProcessorPil(
        size={"shortest_edge": math.floor(min(height, width) / crop_share)},
        crop_size={"height": height, "width": width},
        resample=Image.Resampling[published.get("interpolation", "bicubic").upper()],
        image_mean=list(published.get("mean", (0.485, 0.456, 0.406))),
        image_std=list(published.get("std", (0.229, 0.224, 0.225))),
    )


def fit_processor(processor: BaseImageProcessor, image_size: Size, num_channels: int = 3) -> BaseImageProcessor:
    """A processor whose images have the size that a probe reads; the given one, if they have it already.

    Processors that keep each image's own shape (NaFlex, Pixtral) or build clips give way to a plain one with the same
    normalization; a crop keeps its share of the image.

    Raises:
        ValueError: If the processor cannot give such images.
    """
    if num_channels not in MODES:
        raise ValueError(f"The backbone reads {num_channels} channels; images of {list(MODES)} can be given to it.")
    if _result(processor, num_channels) == (num_channels, *image_size):
        return processor
    numbers = {key: getattr(processor, key, None) for key in NUMBERS}
    crop, edge = getattr(processor, "crop_size", None), (getattr(processor, "size", None) or {}).get("shortest_edge")
    height, width = image_size
    target = {"height": height, "width": width}
    if getattr(processor, "do_center_crop", False) and crop and edge:
        edge = round(edge * max(height / crop["height"], width / crop["width"]))
        fitted = plain_processor({**numbers, "size": {"shortest_edge": edge}, "crop_size": target}, num_channels)
    else:
        fitted = plain_processor({**numbers, "do_resize": True, "size": target}, num_channels)
    if _result(fitted, num_channels) != (num_channels, height, width):
        result = _result(fitted, num_channels) or _result(fitted, 3)
        raise ValueError(
            f"The image processor {type(processor).__name__} gives images of shape {result}, but the backbone reads "
            f"{(num_channels, height, width)}; save a matching preprocessor_config.json beside the backbone."
        )
    return fitted


def image_size_of(config: PreTrainedConfig, processor: BaseImageProcessor | None = None) -> Size:
    """Input size (height, width) in pixels: what the processor produces, else what the backbone was trained with.

    Raises:
        ValueError: If neither names a size.
    """
    if processor is not None and (size := processed_size(processor)):
        return size
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None)  # V-JEPA 2
    if size is None and hasattr(config, "num_patches"):  # NaFlex: the square of the trained sequence length
        size = math.isqrt(config.num_patches) * config.patch_size
    if size is None:
        raise ValueError(
            f"The backbone type {config.model_type!r} names no image size; pass image_size=(height, width)."
        )
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def processed_size(processor: BaseImageProcessor) -> Size | None:
    """Size (height, width) in pixels of the images that a processor produces, if it is fixed."""
    for flag, key in (("do_center_crop", "crop_size"), ("do_resize", "size")):
        size = getattr(processor, key, None) if getattr(processor, flag, False) else None
        if size and "height" in size and "width" in size and size["height"]:
            return size["height"], size["width"]
    return None


def _result(processor: BaseImageProcessor, num_channels: int) -> tuple[int, ...] | None:
    """Shape `(channels, H, W)` that two images of different shapes get, if it is the same."""
    images = [Image.new(MODES[num_channels], size) for size in ((300, 200), (180, 260))]
    try:
        pixels = processor(images, return_tensors="pt")["pixel_values"]
    except (ValueError, TypeError, KeyError):  # shapes that cannot be stacked, or no images at all
        return None
    is_batch = isinstance(pixels, torch.Tensor) and pixels.ndim == 4 and len(pixels) == len(images)
    return tuple(pixels.shape[1:]) if is_batch else None


def _as_size(size: Any, square: bool) -> dict[str, int] | None:
    if isinstance(size, int):
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    size = {key: size[key] for key in ("height", "width", "shortest_edge") if (size or {}).get(key)}
    return size or None
