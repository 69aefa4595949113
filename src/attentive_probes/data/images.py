"""Datasets of images as batches of pixel values: checked before use, decoded when needed."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import fsspec
import torch.utils.data
from datasets import Dataset, IterableDataset
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from attentive_probes.data.labels import LabelEncoder
from attentive_probes.naming import unknown_name

logger = logging.getLogger(__name__)


@dataclass
class ImageOptions:
    """Where images and labels are found, and what to do with a file that cannot be read.

    Args:
        image_column: Column of images.
        label_column: Column of labels.
        unreadable: `raise` names the first unreadable image; `skip` leaves such images out and counts them.
        check: Whether to decode every image once before the work starts; streams are checked as they are read.
        jpeg_min_size: Decode large JPEGs at a reduced scale, with sides of at least this many pixels; `None` decodes
            them in full. Twice the input size loses nothing visible and is several times faster on photographs.

    Raises:
        ValueError: If `unreadable` is neither `raise` nor `skip`, or the size is not positive.
    """

    image_column: str = "image"
    label_column: str = "label"
    unreadable: str = "raise"
    check: bool = True
    jpeg_min_size: int | None = None

    def __post_init__(self) -> None:
        if self.unreadable not in ("raise", "skip"):
            raise ValueError(unknown_name("policy for unreadable images", self.unreadable, ("raise", "skip")))
        if self.jpeg_min_size is not None and self.jpeg_min_size < 1:
            raise ValueError(f"jpeg_min_size is {self.jpeg_min_size}; it must be at least 1, or null.")


class Example(NamedTuple):
    """One labelled image: its position in the dataset, the RGB image, and the encoded label."""

    position: int
    image: Image.Image
    label: Any


def open_image(cell: dict[str, Any] | None, name: str, jpeg_min_size: int | None = None) -> Image.Image:
    """Decode an image cell of a dataset to RGB, upright; grey, palette and alpha images are converted.

    Args:
        cell: `{"path": ..., "bytes": ...}`, one of which may be `None`.
        name: What to call it in messages, where it has no path.
        jpeg_min_size: Least side in pixels to which a large JPEG may be decoded at a reduced scale.

    Raises:
        ValueError: If it cannot be decoded; the text names the file.
    """
    path, content = (cell or {}).get("path"), (cell or {}).get("bytes")
    name = path or name
    try:
        if content is None and path is None:
            raise ValueError("the cell is empty")
        if content is None:
            with fsspec.open(path, "rb") as file:
                content = file.read()
        with Image.open(io.BytesIO(content)) as image:
            if jpeg_min_size is not None:
                image.draft("RGB", (jpeg_min_size, jpeg_min_size))  # of no effect on other formats
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"The image {name} cannot be read ({error}); repair or remove it, or set unreadable='skip'."
        ) from error


class ImageSplit(torch.utils.data.Dataset):
    """One split held by a `datasets.Dataset`, as a PyTorch dataset of `Example`s.

    Args:
        name: What to call it in messages: `train`, `validation` or `test`.
        dataset: The data.
        options: Columns and the policy for unreadable images.
        encoder: Turns labels into targets and checks them.

    Attributes:
        num_unreadable: How many images were left out under the policy `skip`.

    Raises:
        ValueError: If a column is missing or is no image column, a label is out of range, an image cannot be read
            under the policy `raise`, or no image is left.
    """

    def __init__(self, name: str, dataset: Dataset, options: ImageOptions, encoder: LabelEncoder):
        check_columns(name, dataset.column_names, options)
        dataset = encoder.align(dataset, options.label_column, name)
        self.options, self.encoder, self.num_unreadable = options, encoder, 0
        self.data = encoded_images(dataset, options, name)
        encoder.check(self.data, options.label_column, name)
        if options.check:
            self._check_images(name)
        if len(self.data) == 0:
            raise ValueError(f"The {name} split holds no images.")

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: list[int]) -> list[Example]:
        rows = self.data[indices]
        cells, labels = rows[self.options.image_column], rows[self.options.label_column]
        return [
            Example(index, open_image(cell, f"in row {index}", self.options.jpeg_min_size), self.encoder.encode(label))
            for index, cell, label in zip(indices, cells, labels, strict=True)
        ]

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def targets(self) -> Tensor:
        """The encoded labels of all images, `(N,)` class ids, or `(N,)` or `(N, C)` floats."""
        return self.encoder.batch([self.encoder.encode(label) for label in self.data[self.options.label_column]])

    def _check_images(self, name: str) -> None:
        column = self.data.select_columns([self.options.image_column])

        def problem(index: int) -> str | None:
            try:
                open_image(column[index][self.options.image_column], f"in row {index}")
            except ValueError as error:
                return str(error)
            return None

        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            checks = pool.map(problem, range(len(column)))
            problems = list(tqdm(checks, f"checking {name}", len(column), unit="img", leave=False, mininterval=1))
        unreadable = [text for text in problems if text]
        if unreadable and self.options.unreadable == "raise":
            raise ValueError(f"{len(unreadable)} of {len(problems)} {name} images: {unreadable[0]}")
        if unreadable:
            self.num_unreadable = len(unreadable)
            self.data = self.data.select([i for i, text in enumerate(problems) if not text])


class ImageStream(torch.utils.data.IterableDataset):
    """One split held by a `datasets.IterableDataset`, as a PyTorch dataset of `Example`s; see `ImageSplit`.

    Labels and images are checked as they pass. What is skipped is named in the log, and counted unless worker processes
    read the stream.
    """

    def __init__(self, name: str, dataset: IterableDataset, options: ImageOptions, encoder: LabelEncoder):
        columns = dataset.column_names or list(next(iter(dataset)))
        check_columns(name, columns, options)
        self.name, self.options, self.encoder = name, options, encoder
        self.data = encoded_images(dataset, options, name)
        self._skipped: set[int] = set()

    @property
    def num_unreadable(self) -> int:
        """How many images were left out so far, each counted once however often the stream was read."""
        return len(self._skipped)

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle a shuffled stream."""
        self.data.set_epoch(epoch)

    def __iter__(self) -> Iterator[Example]:
        for index, row in enumerate(self.data):
            where = f"at position {index} of the {self.name} stream"
            label = self.encoder.checked(row[self.options.label_column], where)
            try:
                image = open_image(row[self.options.image_column], where, self.options.jpeg_min_size)
            except ValueError as error:
                if self.options.unreadable == "raise":
                    raise
                if index not in self._skipped:
                    logger.warning("Skipped: %s", error)
                self._skipped.add(index)
                continue
            yield Example(index, image, label)


def check_columns(name: str, columns: list[str], options: ImageOptions) -> None:
    """Check that both columns exist.

    Raises:
        ValueError: If one does not.
    """
    for argument in ("image_column", "label_column"):
        if (column := getattr(options, argument)) not in columns:
            raise ValueError(unknown_name(f"column of the {name} split, set {argument}:", column, columns))


def encoded_images(dataset: Any, options: ImageOptions, name: str) -> Any:
    """The two columns of a dataset with images left encoded, so that a broken one can be named.

    Raises:
        ValueError: If the image column holds no images.
    """
    columns = {options.image_column, options.label_column}
    feature = (dataset.features or {}).get(options.image_column, datasets.Image())
    is_path = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    if not (is_path or isinstance(feature, datasets.Image)):
        raise ValueError(
            f"The column {options.image_column!r} of the {name} split holds {feature}, no images or paths of images."
        )
    return dataset.select_columns(sorted(columns)).cast_column(options.image_column, datasets.Image(decode=False))


def open_split(
    name: str, dataset: Dataset | IterableDataset, options: ImageOptions, encoder: LabelEncoder
) -> ImageSplit | ImageStream:
    """Check a split and open it for reading; see `ImageSplit` for what is checked.

    Raises:
        ValueError: As `ImageSplit`.
        TypeError: If it is no dataset of the `datasets` library.
    """
    if isinstance(dataset, Dataset):
        return ImageSplit(name, dataset, options, encoder)
    if isinstance(dataset, IterableDataset):
        return ImageStream(name, dataset, options, encoder)
    raise TypeError(f"The {name} split is a {type(dataset).__name__}; pass a datasets.Dataset or IterableDataset.")
