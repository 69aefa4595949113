"""An order of images that is random enough to learn from and sequential enough for a disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch.utils.data


class BlockShuffle(torch.utils.data.Sampler[int]):
    """A shuffled order that reads a disk in long stretches: blocks in random order, mixed within windows of blocks.

    Images lie on the disk in a random order of their own, so that a block is a random sample already.

    Args:
        num_images: Number of images, here in their order on the disk.
        epoch: Gives the number of the epoch; the order depends on it and on the seed alone.
        seed: Seed of the order.
        block_size: Consecutive images that are read together.
        window: Blocks whose images are mixed.
    """

    def __init__(
        self, num_images: int, epoch: Callable[[], int], seed: int = 0, block_size: int = 64, window: int = 256
    ):
        self.num_images, self.current_epoch, self.seed = num_images, epoch, seed
        self.block_size, self.window = block_size, window

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.current_epoch()))
        blocks = rng.permutation(-(-self.num_images // self.block_size))
        for start in range(0, len(blocks), self.window):
            firsts = blocks[start : start + self.window, None] * self.block_size
            images = (firsts + np.arange(self.block_size)).ravel()
            yield from rng.permutation(images[images < self.num_images]).tolist()
