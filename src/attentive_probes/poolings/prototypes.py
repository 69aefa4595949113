"""Prototypes that are looked for anywhere in the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.layers.precision import exact_type
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class PrototypePooling(Pooling):
    """Learned prototypes; a feature is the best cosine that one has with any token: made for several labels.

    The binarized prototypical probe of "Unmute the Patch Tokens: Rethinking Probing in Multi-Label Audio
    Classification", ICLR 2026, arXiv 2509.24901: prototypes belong to no class, the classifier weighs them. Signs of
    prototypes pass gradients as if they were the identity. How we differ: no regularization of the prototypes, and the
    head's feature normalization stands before the classifier.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_prototypes: Number of prototypes J.
        binary: Whether only the signs of prototypes count.

    Shapes: tokens `(B, T, D)` -> features `(B, J)`, attention `(B, J, T)`: cosines, of which the largest
    counts, from 0 (opposite) to 1.
    """

    paper = "https://arxiv.org/abs/2509.24901"
    attention_kind = "gates"
    learning_rate = 0.003
    query_parameters = frozenset({"prototypes"})

    def __init__(self, width: int, layout: SequenceLayout, *, num_prototypes: int = 128, binary: bool = True):
        super().__init__()
        self.num_features, self.num_tokens, self.binary = num_prototypes, layout.num_tokens, binary
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw prototypes from a normal distribution with standard deviation 0.02."""
        nn.init.normal_(self.prototypes, std=0.02)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        prototypes: Tensor = self.prototypes
        if self.binary:
            signs = torch.where(prototypes >= 0, 1.0, -1.0).to(prototypes.dtype)
            prototypes = signs + prototypes - prototypes.detach()
        cosines = F.linear(F.normalize(tokens, dim=-1), F.normalize(prototypes, dim=-1).to(tokens.dtype)).mT
        return Pooled(cosines.amax(-1), (1 + cosines.to(exact_type(cosines))) / 2)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        total = self.num_tokens * self.prototypes.numel()
        return MultiplyAdds(total, total)
