"""A split of labelled images that passes by: the same labels, images and checks as one that is held."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch.utils.data
from datasets import IterableDataset

from attentive_probes.data.images import Example, ImageOptions, check_columns, encoded_images
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.problems.label_columns import names_of

logger = logging.getLogger(__name__)


class ImageStream(torch.utils.data.IterableDataset):
    """One split held by a `datasets.IterableDataset`, as a PyTorch dataset of `Example`s; see `ImageSplit`.

    Labels and images are checked as they pass. What is skipped is named in the log, and counted unless worker processes
    read the stream.

    Args:
        name: What to call it in messages.
        dataset: The data.
        options: Columns and the policy for unreadable images.
        encoder: Turns labels into targets and checks them.
        num_channels: Channels that the backbone reads.
        shuffle: Images that wait to be drawn from, and the seed of the draw, for training; a warning then says if the
            labels arrive sorted all the same.
    """

    def __init__(
        self,
        name: str,
        dataset: IterableDataset,
        options: ImageOptions,
        encoder: LabelEncoder,
        num_channels: int = 3,
        shuffle: tuple[int, int] | None = None,
    ):
        columns = dataset.column_names or list(next(iter(dataset)))
        check_columns(name, columns, options)
        self.name, self.options, self.encoder, self.num_channels = name, options, encoder, num_channels
        self._target = encoder.reader(names_of((dataset.features or {}).get(options.label_column)))
        self.data = encoded_images(dataset, options, name)
        if shuffle is not None and shuffle[0] > 0:
            self.data = self.data.shuffle(seed=shuffle[1], buffer_size=shuffle[0])
        self._order = OrderOfLabels(name) if shuffle is not None else None
        self._skipped: set[int] = set()

    holds_tokens = is_checked = False
    num_images: None = None

    @property
    def num_unreadable(self) -> int:
        """How many images were left out so far, each counted once however often the stream was read."""
        return len(self._skipped)

    def name_of(self, identity: int) -> str:
        """An image in words; a stream has no rows."""
        return f"an image of the {self.name} stream"

    def leave_out(self, identity: int, why: str) -> None:
        """Count an image that is left out, once, and say why."""
        if identity not in self._skipped:
            logger.warning("Skipped: %s", why)
        self._skipped.add(identity)

    def targets(self) -> None:
        """Not known before the images pass."""

    def rows_at(self, identities: np.ndarray) -> np.ndarray:
        """A stream has no rows: images are known by their content."""
        return identities

    def fingerprint(self) -> str:
        """The name of the stream, whose images nobody has read."""
        return f"stream {self.name}"

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle a shuffled stream."""
        self.data.set_epoch(epoch)

    def __iter__(self) -> Iterator[Example]:
        for index, row in enumerate(self.data):
            where = f"at position {index} of the {self.name} stream"
            label = self._target(row[self.options.label_column], where)
            cell = row[self.options.image_column]
            identity = _identity(cell)
            try:
                image = open_image(cell, where, self.options.jpeg_min_size, self.num_channels, self.options.max_pixels)
            except ValueError as error:
                if self.options.unreadable == "raise":
                    raise
                self.leave_out(identity, str(error))
                continue
            if self._order is not None:
                self._order.see(label)
            yield Example(identity, image, label)
        if self._order is not None:
            self._order.end()


class OrderOfLabels:
    """Watches whether the labels of a training stream come in long runs."""

    ENOUGH = 512

    def __init__(self, name: str):
        self.name, self._labels, self._is_done = name, list[str](), False

    def see(self, label: Any) -> None:
        """Note the next label."""
        if not self._is_done:
            self._labels.append(str(label))
            if len(self._labels) == self.ENOUGH:
                self.end()

    def end(self) -> None:
        """Warn, once, if neighbours have the same label far more often than in a random order."""
        if self._is_done or len(self._labels) < 16:
            return
        self._is_done = True
        labels = np.array(self._labels)
        same = float((labels[1:] == labels[:-1]).mean())
        _, counts = np.unique(labels, return_counts=True)
        by_chance = float(((counts / len(labels)) ** 2).sum())
        if same > 0.5 + by_chance / 2:
            logger.warning(
                "The %s stream arrives sorted by label (%.0f%% of the images follow one of the same): batches "
                "will hold few classes. Raise data.shuffle_buffer, or mix the images within its files.",
                self.name,
                100 * same,
            )


def _identity(cell: Any) -> int:
    """A number that stands for an image wherever it turns up in a stream."""
    content = (cell or {}).get("bytes") or str((cell or {}).get("path")).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big")
