"""Whatever holds a split, opened for reading."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset

from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.sources.torch_datasets import TorchImages


def open_split(
    name: str,
    dataset: Any,
    options: ImageOptions,
    encoder: LabelEncoder,
    *,
    num_channels: int = 3,
    shuffle: tuple[int, int] | None = None,
    rows: np.ndarray | None = None,
    known_content: np.ndarray | None = None,
) -> ImageSplit | ImageStream:
    """Check a split and open it for reading; see `ImageSplit` for what is checked.

    Args:
        name: What to call it in messages.
        dataset: A `datasets.Dataset` or `IterableDataset`, or a PyTorch dataset of (image, label).
        options: Columns and the policy for unreadable images.
        encoder: Turns labels into targets and checks them.
        num_channels: Channels that the backbone reads.
        shuffle: Images of a training stream that wait to be drawn from, and the seed of the draw; 0 images keep its
            order. Files are shuffled as well, and the order changes with the epoch.
        rows: Where the images of a held split lie in what the user named, for messages.
        known_content: As of `ImageSplit`.

    Raises:
        ValueError: As `ImageSplit`.
        TypeError: If it is no dataset.
    """
    if isinstance(dataset, IterableDataset):
        return ImageStream(name, dataset, options, encoder, num_channels, shuffle)
    if not isinstance(dataset, Dataset):
        dataset = TorchImages(dataset, name, options.image_column)
    return ImageSplit(name, dataset, options, encoder, num_channels, rows, known_content)
