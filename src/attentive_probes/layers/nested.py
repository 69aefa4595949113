"""Matryoshka features: nested prefixes that work on their own; in training each image is scored on a random one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NestedDropout(nn.Module):
    """Dropout, and in training for each image one of several parts of the features instead of all.

    "Learning Ordered Representations with Nested Dropout", ICML 2014, arXiv 1402.0915; the parts of "Matryoshka
    Representation Learning", NeurIPS 2022, arXiv 2205.13147, whose summed loss this draws from.

    Args:
        probability: Probability with which a feature is dropped.
        parts: `(L, F)`, which features belong to each part.
        levels: `(L,)`: parts of one level are as likely together as those of any other.
    """

    def __init__(self, probability: float, parts: Tensor, levels: Tensor):
        super().__init__()
        self.parts: Tensor
        self.chances: Tensor
        self.dropout = nn.Dropout(probability)
        counts = (levels[:, None] == levels).sum(1)
        self.register_buffer("parts", parts.float(), persistent=False)
        self.register_buffer("chances", 1 / counts, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(B, F)`, all of them in evaluation."""
        if not self.training:
            return features
        drawn = torch.multinomial(self.chances, len(features), replacement=True)
        return self.dropout(features) * self.parts[drawn].to(features.dtype)
