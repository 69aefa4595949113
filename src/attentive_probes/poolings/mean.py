"""Average of the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class MeanPooling(Pooling):
    """Average of the tokens read: GAP over patches; with the reading `cls`, the class token itself.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, 1, T)`, uniform.
    """

    paper = "https://arxiv.org/abs/1312.4400"
    is_fixed = True

    def __init__(self, width: int, layout: SequenceLayout):
        super().__init__()
        self.num_features, self.num_tokens = width, layout.num_tokens

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        batch, length, _ = tokens.shape
        attention = tokens.new_full((1, 1, 1), 1 / length, dtype=torch.float32).expand(batch, 1, length)
        if length == 1:
            return Pooled(tokens[:, 0], attention)
        # A product with a row of ones is several times faster in bfloat16 on CPU than `tokens.mean(1)`.
        return Pooled(torch.bmm(tokens.new_ones(batch, 1, length), tokens).squeeze(1) / length, attention)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        return MultiplyAdds(self.num_tokens * self.num_features, self.num_tokens * self.num_features)
