"""Whether the queries of a probe look at different things: overlap, coverage, and how fixed their places are.

The measures are ours. The EP paper (arXiv 2506.10178) reports a complementarity without a formula; these numbers are
not to be compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attentive_probes.evaluation.runs.attention_spread import token_entropy

DEAD = 0.1  # mean distance to uniform, in total variation, below which a query finds nothing


@dataclass
class Complementarity:
    """Of Q queries over a data set; maps are scaled to sum to 1 over the N patches of an image.

    Args:
        cosine: `(Q, Q)`, mean over images of the cosine of two maps.
        intersection: `(Q, Q)`, mean over images of `sum_n min(a_n, b_n)`: 1 for the same map, 0 for disjoint ones.
        effective_queries: Exponential of the entropy of the eigenvalues of `cosine / Q`: Q if no two maps overlap, 1 if
            all are the same.
        entropy: `(Q,)`, mean over images of the entropy of each map, in nats; ln N is uniform.
        coverage: Mean over images of the share of patches at which some query looks harder than uniform.
        uniformity: `(Q,)`, mean over images of the total variation between each map and the uniform one.
        agreement: `(Q,)`, mean cosine of the maps of a query in two different images: 1 if it looks at one place
            whatever the image; NaN of a single image.
        num_images: Number of images.
    """

    cosine: Tensor
    intersection: Tensor
    effective_queries: float
    entropy: Tensor
    coverage: float
    uniformity: Tensor
    agreement: Tensor
    num_images: int

    @property
    def overlap(self) -> float:
        """Mean cosine of two different queries; 0 for a single one."""
        return _of_pairs(self.cosine)

    @property
    def shared(self) -> float:
        """Mean intersection of two different queries; 0 for a single one."""
        return _of_pairs(self.intersection)

    @property
    def dead(self) -> list[int]:
        """Queries, from 0, whose maps are all but uniform."""
        return (self.uniformity < DEAD).nonzero().flatten().tolist()


def _of_pairs(table: Tensor) -> float:
    count = len(table)
    return float((table.sum() - table.trace()) / max(1, count * (count - 1)))


class ComplementaritySums:
    """Adds up maps batch by batch; memory is that of one batch and of a map for each query."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.num_images = 0

    def add(self, attention: Tensor) -> None:
        """Add maps `(B, Q, N)` over patches, or `(B, Q, rows, columns)`."""
        maps = attention.detach().flatten(2).double().clamp(min=0)
        maps = maps / maps.sum(-1, keepdim=True).clamp(min=1e-12)
        unit = maps / maps.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        count = maps.shape[-1]
        shared = [torch.minimum(maps[:, i : i + 1], maps).sum(-1).sum(0) for i in range(maps.shape[1])]
        self._add("cosine", (unit @ unit.mT).sum(0))
        self._add("intersection", torch.stack(shared))
        self._add("entropy", token_entropy(maps).sum(0))
        self._add("coverage", (maps.amax(1) * count > 1).double().mean(-1).sum(0))
        self._add("uniformity", (maps - 1 / count).abs().sum(-1).sum(0) / 2)
        self._add("unit", unit.sum(0))
        self.num_images += len(maps)

    def result(self) -> Complementarity:
        """The measures over all that was added.

        Raises:
            ValueError: If there was no image.
        """
        count = self.num_images
        if count == 0:
            raise ValueError("There is no image to look at.")
        means = {name: total / count for name, total in self._sums.items()}
        together = self._sums["unit"].square().sum(-1)  # of all pairs of images, each with itself included
        agreement = (together - count) / (count * (count - 1)) if count > 1 else torch.full_like(together, torch.nan)
        values = torch.linalg.eigvalsh(means["cosine"] / len(means["cosine"])).clamp(min=0)
        entropy = -(values * (values + 1e-12).log()).sum()
        return Complementarity(
            means["cosine"].float(),
            means["intersection"].float(),
            float(entropy.exp()),
            means["entropy"].float(),
            float(means["coverage"]),
            means["uniformity"].float(),
            agreement.float(),
            count,
        )

    def _add(self, name: str, values: Tensor) -> None:
        self._sums[name] = self._sums[name] + values.cpu() if name in self._sums else values.cpu()
