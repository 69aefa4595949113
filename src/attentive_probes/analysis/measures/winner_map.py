"""Which group of queries looks hardest at a place: the pictures of efficient probing (arXiv 2506.10178)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-8
ROUNDS = 25


class WinnerMap(NamedTuple):
    """Of one image: the group `(H, W)` that wins each place, and how strongly `(H, W)`, between 0 and 1."""

    winner: Tensor
    strength: Tensor


def group_queries(attention: Tensor, num_groups: int = 8) -> Tensor:
    """Group queries that look at the same places, once for all images: the group `(Q,)` of each.

    The maps of a query over all images are one row, scaled to unit length. The first centre is the row of largest
    entropy, every further one the row that is least alike to the centres so far; then come 25 rounds of assignment by
    cosine and means of unit length. Nothing is random; a group without queries keeps its centre.

    Args:
        attention: `(B, Q, N)` over the patches of B images.
        num_groups: Number of groups, at most Q.

    Raises:
        ValueError: If there is no group.
    """
    if num_groups < 1:
        raise ValueError(f"num_groups is {num_groups}; there must be at least one group.")
    rows = attention.transpose(0, 1).flatten(1)  # (Q, B N)
    entropy = -(rows * (rows + 1e-12).log()).sum(1)
    rows = rows / (rows.norm(dim=1, keepdim=True) + TINY)
    chosen = [int(entropy.argmax())]
    while len(chosen) < min(num_groups, len(rows)):
        chosen.append(int((rows @ rows[chosen].T).max(1).values.argmin()))
    centres = rows[chosen]
    for _ in range(ROUNDS):
        groups = (rows @ centres.T).argmax(1)
        for group in range(len(centres)):
            if (members := rows[groups == group]).numel():
                mean = members.mean(0)
                centres[group] = mean / (mean.norm() + TINY)
    return (rows @ centres.T).argmax(1)


def merged_maps(attention: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Mean map `(K, ...)` of each group of queries, from maps `(Q, ...)`; zeros for a group without queries."""
    found = [attention[groups == group] for group in range(num_groups)]
    return torch.stack([of_group.mean(0) if len(of_group) else torch.zeros_like(attention[0]) for of_group in found])


def winner_map(maps: Tensor, size: tuple[int, int] | None = None, gamma: float = 0.55) -> WinnerMap:
    """The group that wins each place of an image.

    Maps are drawn larger by bilinear interpolation; the strength of the winner is cut at its 65th and 99th percentile
    in the image and raised to `gamma`.

    Args:
        maps: `(K, rows, columns)`, of groups of queries.
        size: Height and width of the result; by default that of the maps.
        gamma: Below 1, weak winners show.
    """
    if size is not None:
        maps = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    strength, winner = maps.max(0)
    seen = strength[strength.isfinite()]
    low, high = (torch.quantile(seen, q) for q in (0.65, 0.99))
    return WinnerMap(winner, ((strength - low) / (high - low + TINY)).clamp(0, 1) ** gamma)
