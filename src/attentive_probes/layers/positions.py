"""Fixed sin-cos positions."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """Positions `(rows * columns, D)` in raster order; half the channels tell the column, the other half the row.

    Raises:
        ValueError: If D is not divisible by four.
    """
    if width % 4:
        raise ValueError(f"Sin-cos positions need a width divisible by 4, not {width}.")
    rates = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def axis(length: int) -> Tensor:
        angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (length, D / 2)

    rows, columns = grid
    both = [axis(columns).repeat(rows, 1), axis(rows).repeat_interleave(columns, 0)]
    return torch.cat(both, dim=1).float()
