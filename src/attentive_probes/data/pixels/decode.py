"""One image, however it is stored, as 8-bit pixels: what training, `evaluate`, `predict` and pipelines see of a file.

| stored as | read as |
|---|---|
| 8-bit grey, RGB, palette, 1-bit, CMYK, YCbCr, LAB, HSV | RGB (grey for backbones of one channel) |
| alpha, also of a palette | laid over white; kept for backbones of four channels |
| 16-bit grey | divided by 257, so that the full range stays the full range |
| floating point | times 255 if all values lie in [0, 1]; else refused, since nothing says what is white |
| 32-bit integers | refused, for the same reason |
| animated | the first frame |
| with an EXIF orientation | turned upright |
| PostScript and other formats that run another program | refused |
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Condition
from typing import Any

import fsspec
import numpy as np
from PIL import Image, ImageOps

from attentive_probes.backbones import MODES

REMEDY = "repair or remove it, or set unreadable='skip'"
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # where Pillow begins to suspect a bomb
IN_FLIGHT = 2**26  # pixels that are decoded at a time, by however many threads; a larger image is alone
STRIP = 2**20  # pixels that are laid over white at a time
PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_avif": None, "pillow_jxl": None}
TIFF = (b"II*\0", b"MM\0*")
HANDED_ON = ("EPS", "PDF", "WMF", "MPEG", "HDF5", "GRIB", "BUFR")  # PostScript, for one, is run by Ghostscript
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")


class PixelBudget:
    """Lets only so many pixels be decoded at a time.

    Args:
        total: Their number.
    """

    def __init__(self, total: int):
        self.total = total
        self.reset()

    def reset(self) -> None:
        """Nothing is being decoded, as in a process that was forked."""
        self._free, self._changed = self.total, Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """A context for the decoding of an image; it waits for its turn."""
        pixels = min(pixels, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


BUDGET = PixelBudget(IN_FLIGHT)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BUDGET.reset)


def open_image(
    cell: Any,
    name: str,
    jpeg_min_size: int | None = None,
    num_channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    remedy: str = REMEDY,
) -> Image.Image:
    """Decode an image to 8 bits, upright, in the channels that a backbone reads; the table above says how.

    Args:
        cell: `{"path": ..., "bytes": ...}`, one of which may be `None`; or a PIL image.
        name: What to call it in messages, where it has no path.
        jpeg_min_size: Least side in pixels to which a large JPEG may be decoded at a reduced scale.
        num_channels: 1, 3 or 4.
        max_pixels: Most pixels that it may have.
        remedy: What whoever brought it can do, in words.

    Raises:
        ValueError: If it cannot be decoded, or is too large; the text names the file.
    """
    path = cell.get("path") if isinstance(cell, dict) else None
    content = None
    try:
        if isinstance(cell, Image.Image):
            return to_mode(ImageOps.exif_transpose(cell), MODES[num_channels])
        content = encoded_bytes(cell)
        with Image.open(io.BytesIO(content), formats=safe_formats()) as image:
            if jpeg_min_size is not None:
                image.draft("RGB", (jpeg_min_size, jpeg_min_size))  # of no effect on other formats
            if image.width * image.height > max_pixels:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than max_pixels={max_pixels}; make it smaller, or "
                    "set data.images.max_pixels"
                )
            with BUDGET.taken(image.width * image.height):
                return to_mode(ImageOps.exif_transpose(image), MODES[num_channels])
    except Exception as error:  # whatever an untrusted file makes a decoder do
        raise ValueError(f"The image {path or name} cannot be read ({_cause(error, content)}); {remedy}.") from error


def open_file(path: str | os.PathLike, num_channels: int = 3) -> Image.Image:
    """The image in a file, as `open_image` decodes it.

    Raises:
        ValueError: If it cannot be decoded, or is too large; the text names the file.
    """
    return open_image({"path": str(path), "bytes": None}, str(path), num_channels=num_channels)


def encoded_bytes(cell: dict[str, Any] | None) -> bytes:
    """The stored bytes of an image cell.

    Raises:
        ValueError: If the cell is empty.
    """
    path, content = (cell or {}).get("path"), (cell or {}).get("bytes")
    if content is None:
        if path is None:
            raise ValueError("the cell is empty")
        if "://" not in path:  # a local file, whatever characters are in its name
            return Path(path).read_bytes()
        with fsspec.open(path, "rb") as file:
            content = file.read()
    return content


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image in 8-bit grey (`L`), `RGB` or `RGBA`.

    Raises:
        ValueError: If nothing says which of its values is white.
    """
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode == "I" and image.format == "PNG":  # 16-bit grey, as older versions of Pillow open it
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"its values are floating-point numbers from {values.min():g} to {values.max():g}, and nothing says "
                "which is white: scale them to [0, 1], or save 8 or 16 bits"
            )
        image = Image.fromarray(np.round(values * 255).astype(np.uint8))
    elif image.mode == "I":
        raise ValueError("its values are 32-bit integers, and nothing says which is white: save 8 or 16 bits")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return _over_white(image, mode) if has_alpha and mode != "RGBA" else image.convert(mode)


def brightest_of_16_bits(cell: Any) -> int | None:
    """The largest value of an image of 16 bits; `None` of any other, and of one that cannot be read."""
    try:
        with Image.open(io.BytesIO(encoded_bytes(cell)), formats=safe_formats()) as image:
            is_wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
            is_wide &= image.width * image.height <= MAX_PIXELS
            return int(np.asarray(image).max()) if is_wide else None
    except Exception:  # whoever reads it in earnest says so
        return None


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    """An image without its alpha, strip by strip: four bytes a pixel are made at a time, not sixteen."""
    found, rows = Image.new(mode, image.size), max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image.crop(box).convert("RGBA")
        found.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert(mode), box)
    return found


@cache
def register_plugins() -> None:
    """Let Pillow open the formats for which a plug-in is installed (HEIC, AVIF, JPEG XL)."""
    for plugin, function in PLUGINS.items():
        try:
            module = import_module(plugin)
        except ImportError:
            continue
        if function is not None:
            getattr(module, function)()


@cache
def safe_formats() -> tuple[str, ...]:
    """The formats that Pillow opens here, but for those that it hands to another program or library."""
    register_plugins()
    Image.init()
    return tuple(name for name in Image.ID if name not in HANDED_ON)


@cache
def image_endings() -> frozenset[str]:
    """Endings of the files that can be opened here, with their dots, in small letters."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in safe_formats()) - {
        ".pdf", ".mpg", ".mpeg", ".h5", ".hdf",
    }  # fmt: skip


def _cause(error: Exception, content: bytes | None) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "it has more than twice the pixels at which Pillow suspects a bomb; make it smaller"
    if isinstance(error, Image.UnidentifiedImageError):
        if content is not None and content[:4] in POSTSCRIPT:
            return "PostScript, which other programs would have to run; save it as PNG"
        if content is not None and content[:4] in TIFF:
            return "a TIFF with more bands than four, or of another kind that Pillow does not know; save three bands"
        return "it is no image, or of a kind that Pillow does not know"
    return str(error) or type(error).__name__
