"""What every split can do, whatever form it comes in: held images, a stream of images, or cached tokens."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor


class Split(Protocol):
    """Labelled images that are read step by step.

    Attributes:
        holds_tokens: Whether its batches hold tokens of the backbone instead of images.
        is_checked: Whether every image is known to be readable.
    """

    holds_tokens: bool
    is_checked: bool

    @property
    def num_images(self) -> int | None:
        """Number of images; `None` for a stream, whose length is not known."""

    @property
    def num_unreadable(self) -> int:
        """How many images were left out, as far as is known."""

    def targets(self) -> Tensor | None:
        """The targets of all images, `(N,)` class ids, or `(N,)` or `(N, C)` floats; `None` for a stream."""

    def rows_at(self, identities: np.ndarray) -> np.ndarray:
        """Where images `(K,)` of a batch lie in the data that the user named."""

    def set_epoch(self, epoch: int) -> None:
        """Choose order and views, from 1 in training."""

    def fingerprint(self) -> str:
        """What the split is known by: content, order and targets of its images, as far as they are known."""
