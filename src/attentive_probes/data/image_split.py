"""A split of labelled images that is held: labels through the one table, images checked and decoded when needed."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch.utils.data
from datasets import Dataset, concatenate_datasets
from PIL import Image
from torch import Tensor

from attentive_probes.data.images import Example, ImageOptions, check_columns, encoded_images
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.pixels.content_hashes import find_content
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.data.sources.torch_datasets import TorchImages
from attentive_probes.files.fingerprint import bytes_fingerprint
from attentive_probes.problems.label_columns import Labels

logger = logging.getLogger(__name__)
FEW_IMAGES = 10_000  # that are decoded in seconds


class ImageSplit(torch.utils.data.Dataset):
    """One split that is held, as a PyTorch dataset of `Example`s.

    Args:
        name: What to call it in messages: `train`, `validation` or `test`.
        dataset: The data.
        options: Columns and the policy for unreadable images.
        encoder: Turns labels into targets and checks them.
        num_channels: Channels that the backbone reads.
        rows: Where the images `(N,)` lie in what the user named, for messages; by default as they come.
        known_content: A hash `(N,)` of the bytes of each image, where they were read before.

    Attributes:
        data: The images, encoded.
        labels: Targets of all images: `(N,)` class ids, or `(N,)` or `(N, C)` floats.
        is_checked: Whether every image is known to be readable.

    Raises:
        ValueError: If a column is missing or is no image column, a label is no target, an image cannot be read under
            the policy `raise`, or no image is left.
    """

    def __init__(
        self,
        name: str,
        dataset: Dataset | TorchImages,
        options: ImageOptions,
        encoder: LabelEncoder,
        num_channels: int = 3,
        rows: np.ndarray | None = None,
        known_content: np.ndarray | None = None,
    ):
        self.name, self.options, self.encoder, self.num_channels = name, options, encoder, num_channels
        if isinstance(dataset, TorchImages):
            found, self.data = dataset.labels(), dataset
        else:
            dataset = dataset.with_format(None)  # what is stored, whatever view its owner has set
            check_columns(name, dataset.column_names, options)
            found, self.data = Labels.of(dataset, options.label_column), encoded_images(dataset, options, name)
        if len(self.data) == 0:
            raise ValueError(f"The {name} split holds no images.")
        self.labels = encoder.column(found, name)
        self.is_checked, self.rows = False, np.arange(len(self.data)) if rows is None else rows
        self._content = known_content
        self._num_left_out, self._unreadable = 0, set[int]()
        if options.check or (options.check is None and len(self) <= FEW_IMAGES):
            self.check_images()

    holds_tokens = False

    @property
    def num_images(self) -> int:
        """Number of images N."""
        return len(self)

    @property
    def num_unreadable(self) -> int:
        """How many images were left out under the policy `skip`, as far as is known."""
        return self._num_left_out + len(self._unreadable)

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: list[int]) -> list[Example]:
        cells = self.data[indices][self.options.image_column] if indices else []
        return [Example(i, self._open(i, cell), self.labels[i]) for i, cell in zip(indices, cells, strict=True)]

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def targets(self) -> Tensor:
        """The targets of all images, `(N,)` class ids, or `(N,)` or `(N, C)` floats."""
        return torch.from_numpy(self.labels)

    def rows_at(self, identities: np.ndarray) -> np.ndarray:
        """Where images `(K,)` of a batch lie in the data that the user named."""
        return self.rows[identities]

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes with the epoch: order and views are drawn by whoever reads."""

    def fingerprint(self) -> str:
        """Content, order and targets of its images; of images that were not read, the fingerprint of their dataset."""
        images = self.content() if self.knows_content else getattr(self.data, "_fingerprint", "")
        return bytes_fingerprint(bytes_fingerprint(images) + bytes_fingerprint(self.labels))

    def check_images(self) -> None:
        """Decode every image once, unless these very files were, and leave those out that cannot be read.

        Raises:
            ValueError: If an image cannot be read under the policy `raise`, or none can.
        """
        options = self.options

        def check(row: int, cell: Any) -> None:
            open_image(cell, f"in row {self.rows[row]}", None, self.num_channels, options.max_pixels)

        found = find_content(self.data, self.options.image_column, check, self.name)
        first = next(iter(found.problems.values()), None)
        if first is not None and self.options.unreadable == "raise":
            raise ValueError(f"{len(found.problems)} of {len(self)} {self.name} images: {first}")
        kept = np.setdiff1d(np.arange(len(self)), list(found.problems))
        if not len(kept):
            raise ValueError(f"The {self.name} split holds no images that can be read; the first: {first}")
        self._content, self.is_checked = found.digests[kept], True
        if first is not None:
            self._num_left_out = len(found.problems)
            self.data, self.labels, self.rows = self.data.select(kept.tolist()), self.labels[kept], self.rows[kept]

    @property
    def knows_content(self) -> bool:
        """Whether `content` is known without reading the images."""
        return self._content is not None

    def content(self) -> np.ndarray:
        """A hash `(N,)` of the bytes of each image, whatever its file is called; all processes must ask."""
        if self._content is None:
            self._content = find_content(self.data, self.options.image_column, None, self.name).digests
        return self._content

    def joined(self, other: ImageSplit) -> ImageSplit:
        """This split, then another one of the same dataset."""
        both = copy.copy(self)
        both.data = concatenate_datasets([self.data, other.data])
        both.labels, both.rows = (
            np.concatenate(pair) for pair in ((self.labels, other.labels), (self.rows, other.rows))
        )
        both._content = np.concatenate([self.content(), other.content()])
        both._num_left_out = self._num_left_out + other._num_left_out
        return both

    def _open(self, index: int, cell: Any) -> Image.Image | None:
        try:
            sizes = (self.options.jpeg_min_size, self.num_channels, self.options.max_pixels)
            return open_image(cell, f"in row {self.rows[index]}", *sizes)
        except ValueError as error:
            if self.options.unreadable == "raise":
                raise
            self.leave_out(index, str(error))
            return None

    def name_of(self, index: int) -> str:
        """An image in words: its file, where it has one, and its row."""
        cell = self.data[index][self.options.image_column]
        path = cell.get("path") if isinstance(cell, dict) else None
        return f"the image {path or ''} in row {self.rows[index]} of the {self.name} split".replace("  ", " ")

    def leave_out(self, index: int, why: str) -> None:
        """Count an image that is left out, once, and say why."""
        if index not in self._unreadable:
            logger.warning("Skipped: %s", why)
        self._unreadable.add(index)


def check_apart(one: ImageSplit, other: ImageSplit) -> None:
    """Check that two splits are not the same images, byte for byte; images that they share draw a warning.

    Raises:
        ValueError: If they are.
    """
    small, large = sorted((one, other), key=len)
    if len(small) == len(large) and np.array_equal(np.sort(small.content()), np.sort(large.content())):
        raise ValueError(f"The {one.name} split and the {other.name} split hold the same images; name others.")
    shared = int(np.isin(small.content(), large.content()).sum())
    if shared:
        logger.warning(
            "%d of %d images of the %s split are, byte for byte, in the %s split as well.",
            shared, len(small), small.name, large.name,
        )  # fmt: skip
