"""Labelled images: where a dataset holds them, and what is read of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
from datasets import Dataset
from PIL import Image

from attentive_probes.checks import COUNT, OPTIONAL_COUNT, check_ranges, unknown_name
from attentive_probes.data.pixels.decode import MAX_PIXELS

PLAIN = ("string", "large_string", "binary", "large_binary")


@dataclass
class ImageOptions:
    """Where images and labels are found, and what to do with a file that cannot be read.

    Args:
        image_column: Column of images.
        label_column: Column of labels.
        unreadable: `raise` names the first image that cannot be read, or of which the backbone gives tokens that are
            not finite; `skip` leaves such images out and counts them.
        check: Whether to decode every image once before the work starts; files that were are not read again. `None`
            does so for splits of up to 10,000 images, which takes seconds, unless their tokens are to be cached, which
            checks them. Else, as in streams, an unreadable image is met on the way, and its batch goes without it.
        unlabelled: `raise` counts the images without a label; `skip` leaves them out.
        label_separator: What stands between the labels of an image, where several are text in one cell.
        jpeg_min_size: Decode large JPEGs at a reduced scale, with sides of at least this many pixels; `None` decodes
            them in full. Twice the input size loses nothing visible and is several times faster on photographs.
        max_pixels: Most pixels of an image, by its header; a larger one counts as unreadable, so that no small file
            takes all memory.

    Raises:
        ValueError: If `unreadable` or `unlabelled` is neither `raise` nor `skip`, or a size is not positive.
    """

    image_column: str = "image"
    label_column: str = "label"
    unreadable: str = "raise"
    check: bool | None = None
    label_separator: str | None = None
    unlabelled: str = "raise"
    jpeg_min_size: int | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.unreadable not in ("raise", "skip"):
            raise ValueError(unknown_name("policy for unreadable images", self.unreadable, ("raise", "skip")))
        if self.unlabelled not in ("raise", "skip"):
            raise ValueError(unknown_name("policy for images without a label", self.unlabelled, ("raise", "skip")))
        check_ranges(self, {"jpeg_min_size": OPTIONAL_COUNT, "max_pixels": COUNT})


class Example(NamedTuple):
    """One labelled image: what its views are drawn for, the image in 8 bits, and the target.

    `identity` is the row of a held split and a hash of the image in a stream; `image` is `None` if it cannot be read.
    """

    identity: int
    image: Image.Image | None
    label: Any


def check_columns(name: str, columns: list[str], options: ImageOptions) -> None:
    """Check that both columns exist.

    Raises:
        ValueError: If one does not.
    """
    for argument in ("image_column", "label_column"):
        if (column := getattr(options, argument)) not in columns:
            unlabelled = " Without labels it can be predicted, but not learned or scored."
            text = unknown_name(f"column of the {name} split, set {argument}:", column, columns)
            raise ValueError(text + (unlabelled if argument == "label_column" else ""))


def encoded_images(dataset: Any, options: ImageOptions, name: str) -> Any:
    """The two columns of a dataset with images left encoded, so that a broken one can be named.

    Raises:
        ValueError: If the image column holds no images.
    """
    columns = {options.image_column, options.label_column}
    if isinstance(dataset, Dataset):
        columns.remove(options.label_column)  # read once, through the label table
    feature = (dataset.features or {}).get(options.image_column, datasets.Image())
    is_plain = isinstance(feature, datasets.Value) and feature.dtype in PLAIN  # a path, or the bytes
    is_struct = isinstance(feature, dict) and "bytes" in feature
    if not (is_plain or is_struct or isinstance(feature, datasets.Image)):
        raise ValueError(
            f"The column {options.image_column!r} of the {name} split holds {feature}, no images or paths of images."
        )
    return dataset.select_columns(sorted(columns)).cast_column(options.image_column, datasets.Image(decode=False))
