"""The local branch of DOLG."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class DolgPooling(Pooling):
    """DOLG's local branch: mapped and batch-normalized tokens of unit length, weighted by a softplus score.

    "DOLG: Single-Stage Image Retrieval with Deep Orthogonal Fusion of Local and Global Features", ICCV 2021, arXiv
    2108.02927; its attention alone, as the EP paper studies it. How we differ: the tokens need not be a grid.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, 1, T)`: positive scores, not normalized.
    """

    paper = "https://arxiv.org/abs/2108.02927"
    query_parameters = frozenset({"score"})
    attention_kind = "gates"

    def __init__(self, width: int, layout: SequenceLayout):
        super().__init__()
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.value_map = nn.Linear(width, width)
        self.norm = BatchNorm(width, affine=True, eps=1e-5)
        self.score = nn.Linear(width, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights for ReLU by their fan-out, hence the score's with standard deviation sqrt(2)."""
        nn.init.normal_(self.value_map.weight, std=(2 / self.num_features) ** 0.5)
        nn.init.normal_(self.score.weight, std=2**0.5)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        local = self.norm(self.value_map(tokens).flatten(0, 1)).view_as(tokens)
        scores = F.softplus(self.score(local.relu())).mT  # (B, 1, T)
        features = torch.bmm(scores, F.normalize(local, dim=-1)).squeeze(1) / tokens.shape[1]
        return Pooled(features, scores)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        total = self.num_tokens * self.num_features * (self.num_features + 1)
        return MultiplyAdds(total, total)
