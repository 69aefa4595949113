"""Attentive layer fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.cross import NormedCrossAttention
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import QueryPooling
from attentive_probes.tokens import SequenceLayout


class AttentiveLayerFusion(QueryPooling):
    """ALF: one learned query attends to the class and mean tokens of all layers, with as many heads as tokens.

    "Attentive Multi-Layer Fusion for Vision Transformers", ICML 2026, arXiv 2601.09322. Read it with the tokens of
    several layers, `token_norm: l2` and `feature_norm: batchnorm_affine`, as the paper does. The head width is doubled,
    `d = 2 floor(D / h)`. How we differ: keys and values fold around the pooling; any reading is accepted.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence.
        num_attention_heads: Number of attention heads h; `None` takes the number of tokens.
        attention_dropout: Probability with which an attention weight is dropped in training.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1 (in training with dropout:
    on average).

    Raises:
        ValueError: If there are more attention heads than channels, or the dropout is not in [0, 1).
    """

    paper = "https://arxiv.org/abs/2601.09322"

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        num_attention_heads: int | None = None,
        attention_dropout: float = 0.0,
    ):
        super().__init__()
        heads = layout.num_tokens if num_attention_heads is None else num_attention_heads
        if not 1 <= heads <= width:
            raise ValueError(
                f"num_attention_heads={heads} (by default the number of tokens) is not between 1 and the width {width}."
            )
        if not 0 <= attention_dropout < 1:
            raise ValueError(f"attention_dropout={attention_dropout} is not at least 0 and below 1.")
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.attention_dropout = attention_dropout
        self.query = nn.Parameter(torch.empty(width))
        self.cross = NormedCrossAttention(width, heads * 2 * (width // heads), heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the query from a normal distribution with standard deviation 0.02."""
        nn.init.normal_(self.query, std=0.02)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The query per attention head."""
        return self.cross.queries(self.query, statistics, self.attention_dropout)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Map values and output."""
        return self.cross.readout(pooled, attention, queries)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        return self.cross.multiply_adds(self.num_tokens)
