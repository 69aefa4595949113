"""A learned mix of tokens by their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class WeightedPooling(Pooling):
    """One learned weight per place in the sequence, the same for all images: a scalar mix of layers.

    The mix of "Deep Contextualized Word Representations", NAACL 2018, arXiv 1802.05365, without its overall scale,
    which the feature normalization removes.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, 1, T)`, rows sum to 1.
    """

    paper = "https://arxiv.org/abs/1802.05365"
    query_parameters = frozenset({"logits"})
    order_matters = True

    def __init__(self, width: int, layout: SequenceLayout):
        super().__init__()
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.logits = nn.Parameter(torch.zeros(layout.num_tokens))

    def reset_parameters(self) -> None:
        """Start with equal weights."""
        nn.init.zeros_(self.logits)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        attention = self.logits.softmax(0).expand(tokens.shape[0], 1, -1)
        features = torch.bmm(attention.to(tokens.dtype), tokens).squeeze(1)
        return Pooled(features, attention.to(torch.promote_types(attention.dtype, torch.float32)))

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        return MultiplyAdds(self.num_tokens * self.num_features, self.num_tokens * self.num_features)
