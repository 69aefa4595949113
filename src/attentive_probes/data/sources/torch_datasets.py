"""PyTorch datasets of (image, label), read as other splits are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from attentive_probes.problems.label_columns import Labels


class TorchImages:
    """A map-style PyTorch dataset, such as one of torchvision, whose items are (PIL image, label).

    Labels are taken from its attribute `targets` where there is one, so that no image is opened for them, and the names
    of its classes from `classes`.

    Args:
        dataset: The dataset, without a transform to tensors.
        name: What to call it in messages.
        image_column: What the images are called here.
        rows: Which items; all by default.

    Raises:
        TypeError: If it is no such dataset.
    """

    def __init__(self, dataset: Any, name: str, image_column: str, rows: Sequence[int] | None = None):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(
                f"The {name} split is a {type(dataset).__name__}; pass a datasets.Dataset or IterableDataset, or a "
                "PyTorch dataset of (image, label) with a length."
            )
        self._dataset, self._name, self._image_column = dataset, name, image_column
        self._rows = range(len(dataset)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | list[int]) -> dict[str, Any]:
        if isinstance(index, int):
            return {self._image_column: self._image(index)}
        return {self._image_column: [self._image(i) for i in index]}

    def select(self, indices: Sequence[int]) -> TorchImages:
        """Some of its items."""
        return TorchImages(self._dataset, self._name, self._image_column, [self._rows[i] for i in indices])

    def labels(self) -> Labels:
        """The labels of all items, and the names of the classes where the dataset has them."""
        targets = getattr(self._dataset, "targets", None)
        if targets is None or len(targets) != len(self._dataset):
            targets = [self._item(i)[1] for i in range(len(self._dataset))]
        values = np.asarray(torch.as_tensor(targets) if isinstance(targets, torch.Tensor) else targets).tolist()
        names = getattr(self._dataset, "classes", None)
        return Labels(pa.array([values[i] for i in self._rows]), None if names is None else tuple(map(str, names)))

    def _item(self, row: int) -> tuple[Any, Any]:
        item = self._dataset[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise TypeError(f"Item {row} of the {self._name} split is no pair (image, label): {type(item).__name__}.")
        return item[0], item[1]

    def _image(self, index: int) -> Image.Image:
        image = self._item(self._rows[index])[0]
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"Item {index} of the {self._name} split holds a {type(image).__name__} for an image; leave out the "
                "dataset's transform: the image processor of the backbone makes the tensors."
            )
        return image
