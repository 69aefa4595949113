"""How evenly heads spread their attention over tokens: a head whose queries did not move sees the mean token.

Of heads whose attention is shared out among tokens; gates, which are not, have no bound that means anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

EVEN = 0.95  # of all tokens: attention that is spread over more of them is called uniform


class Spread(NamedTuple):
    """Mean entropy of the attention of a head, over queries and images, in nats, and that of uniform attention."""

    entropy: float
    bound: float

    @property
    def share(self) -> float:
        """The share of the tokens that attention is spread over: as many equal ones have that entropy."""
        return math.exp(min(0.0, self.entropy - self.bound))

    @property
    def is_even(self) -> bool:
        """Whether it cannot be told from uniform attention."""
        return self.share > EVEN


def token_entropy(attention: Tensor) -> Tensor:
    """Entropy `(...)` of attention `(..., T)` over tokens, in nats; rows need not sum to 1.

    Between 0, where one token has all, and ln T, where all have the same. Negative gates count as none.
    """
    shares = attention.detach().clamp(min=0)
    shares = shares / shares.sum(-1, keepdim=True).clamp(min=1e-12)
    return torch.special.entr(shares).sum(-1)


class SpreadSums:
    """Adds up the spread of several heads, batch by batch."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, attention: Mapping[str, Tensor]) -> None:
        """Add a batch of this process: name of a head -> attention `(B, M, T)`; B may be 0."""
        for name, each in attention.items():
            count = torch.tensor(float(len(each)), device=each.device)
            entropy = token_entropy(each.float()).mean(-1).sum() if len(each) else count
            found = torch.stack([entropy, count * math.log(each.shape[-1]), count])
            self._sums[name] = self._sums[name] + found if name in self._sums else found

    def spreads(self, accelerator: Accelerator | None = None) -> dict[str, Spread]:
        """Name -> spread over all batches, of all processes."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values()))
        sums = sums if accelerator is None else accelerator.reduce(sums, "sum")
        means = (sums[:, :2] / sums[:, 2:].clamp(min=1)).tolist()
        return {name: Spread(*mean) for name, mean in zip(self._sums, means, strict=True)}
