"""All tokens side by side."""

from __future__ import annotations

from torch import Tensor

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class ConcatPooling(Pooling):
    """The tokens side by side: with `cls@...` and `mean@...` of several layers, DINOv2's linear evaluation.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence.

    Shapes: tokens `(B, T, D)` -> features `(B, T D)`, attention `(B, 1, T)`, uniform.
    """

    paper = "https://arxiv.org/abs/2304.07193"
    order_matters = True
    is_fixed = True

    def __init__(self, width: int, layout: SequenceLayout):
        super().__init__()
        self.num_features = width * layout.num_tokens

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        batch, length, _ = tokens.shape
        return Pooled(tokens.flatten(1), tokens.new_full((batch, 1, length), 1 / length).float())

    def multiply_adds(self) -> MultiplyAdds:
        """None."""
        return MultiplyAdds(0, 0)
