"""A split of labelled images that is held: labels through the one table, images checked and decoded when needed."""

from __future__ import annotations

import copy
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch.utils.data
from datasets import Dataset, concatenate_datasets
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from attentive_probes.data.decode import encoded_bytes, open_image
from attentive_probes.data.images import Example, ImageOptions, check_columns, encoded_images
from attentive_probes.data.labels import LabelEncoder, Labels
from attentive_probes.data.torch_datasets import TorchImages

logger = logging.getLogger(__name__)


class ImageSplit(torch.utils.data.Dataset):
    """One split that is held, as a PyTorch dataset of `Example`s.

    Args:
        name: What to call it in messages: `train`, `validation` or `test`.
        dataset: The data.
        options: Columns and the policy for unreadable images.
        encoder: Turns labels into targets and checks them.
        num_channels: Channels that the backbone reads.

    Attributes:
        data: The images, encoded.
        labels: Targets of all images: `(N,)` class ids, or `(N,)` or `(N, C)` floats.

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
        self.digests: np.ndarray | None = None
        self._content: np.ndarray | None = None
        self._num_left_out, self._unreadable = 0, set[int]()
        if options.check:
            self.check_images()

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

    def check_images(self) -> None:
        """Decode every image once, and leave those out that cannot be read, or name the first.

        Raises:
            ValueError: If an image cannot be read under the policy `raise`, or none can.
        """
        column, name = self.options.image_column, self.name

        def problem(index: int) -> tuple[str | None, bytes]:
            cell = self.data[index][column]
            try:
                open_image(cell, f"in row {index}", None, self.num_channels)
                return None, _digest(cell)
            except ValueError as error:
                return str(error), b""

        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            checks = pool.map(problem, range(len(self.data)))
            found = list(tqdm(checks, f"checking {name}", len(self.data), unit="img", leave=False, mininterval=1))
        problems = [text for text, _ in found if text]
        if problems and self.options.unreadable == "raise":
            raise ValueError(f"{len(problems)} of {len(found)} {name} images: {problems[0]}")
        kept = [i for i, (text, _) in enumerate(found) if not text]
        if not kept:
            raise ValueError(f"The {name} split holds no images that can be read; the first: {problems[0]}")
        self.digests = np.frombuffer(b"".join(found[i][1] for i in kept), np.uint64)
        if problems:
            self._num_left_out = len(problems)
            self.data, self.labels = self.data.select(kept), self.labels[kept]

    def content(self) -> np.ndarray:
        """A hash `(N,)` of the bytes of each image, whatever its file is called; read now if they were not checked."""
        if self.digests is not None:
            return self.digests
        if self._content is None:
            column = self.options.image_column
            with ThreadPoolExecutor() as pool:
                found = pool.map(lambda index: _digest(self.data[index][column]), range(len(self.data)))
                self._content = np.frombuffer(b"".join(found), np.uint64)
        return self._content

    def joined(self, other: ImageSplit) -> ImageSplit:
        """This split, then another one of the same dataset."""
        both = copy.copy(self)
        both.data = concatenate_datasets([self.data, other.data])
        both.labels = np.concatenate([self.labels, other.labels])
        both.digests, both._content = None, np.concatenate([self.content(), other.content()])
        both._num_left_out = self._num_left_out + other._num_left_out
        return both

    def _open(self, index: int, cell: Any) -> Image.Image | None:
        try:
            return open_image(cell, f"in row {index}", self.options.jpeg_min_size, self.num_channels)
        except ValueError as error:
            if self.options.unreadable == "raise":
                raise
            if index not in self._unreadable:
                logger.warning("Skipped: %s", error)
            self._unreadable.add(index)
            return None


def _digest(cell: Any) -> bytes:
    if isinstance(cell, Image.Image):
        content = f"{cell.mode} {cell.size}".encode() + cell.tobytes()
    else:
        content = encoded_bytes(cell)
    return hashlib.blake2b(content, digest_size=8).digest()


def check_apart(one: ImageSplit, other: ImageSplit) -> None:
    """Check that two splits are not the same images, byte for byte; images that they share draw a warning.

    Args:
        one: A split whose images were checked.
        other: Another one.

    Raises:
        ValueError: If they are.
    """
    small, large = sorted((one, other), key=len)
    assert small.digests is not None and large.digests is not None
    if len(small) == len(large) and np.array_equal(np.sort(small.digests), np.sort(large.digests)):
        raise ValueError(f"The {one.name} split and the {other.name} split hold the same images; name others.")
    shared = int(np.isin(small.digests, large.digests).sum())
    if shared:
        logger.warning(
            "%d of %d images of the %s split are, byte for byte, in the %s split as well.",
            shared, len(small), small.name, large.name,
        )  # fmt: skip
