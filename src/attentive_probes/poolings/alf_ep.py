"""An attentive summary of each layer, then their fusion."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.alf import AttentiveLayerFusion
from attentive_probes.poolings.base import Pooled, Pooling, fold
from attentive_probes.poolings.ep import EfficientProbing
from attentive_probes.tokens import SequenceLayout


class SummaryFusion(Pooling):
    """Efficient probing summarizes each item of the reading, and ALF's query attends to the summaries.

    ALF ("Attentive Multi-Layer Fusion for Vision Transformers", ICML 2026, arXiv 2601.09322) sees of a layer its class
    token and its average patch; here the average gives way to EP (arXiv 2506.10178) over the patches. Read it with
    `patches@all`, or with `cls@all, patches@all`. An item of one token is only projected.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence, and the lengths of its items; without them it is one item.
        num_queries: Queries of each summary.
        d_out: Summaries, and the features, have width `D / d_out`.
        num_attention_heads: Attention heads h over summaries; `None` takes one per summary.
        attention_dropout: Probability with which a summary is dropped by an attention head in training.

    Shapes: tokens `(B, T, D)` -> features `(B, D / d_out)`, attention `(B, h, T)`: the share of a summary, over its
    tokens as its queries on average; rows sum to 1 (in training with dropout: on average).

    Raises:
        ValueError: As `EfficientProbing` and `AttentiveLayerFusion`.
    """

    paper = "https://arxiv.org/abs/2601.09322"
    learning_rate = 0.003

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        num_queries: int = 8,
        d_out: int = 1,
        num_attention_heads: int | None = None,
        attention_dropout: float = 0.0,
    ):
        super().__init__()
        self.lengths = layout.lengths or (layout.num_tokens,)
        self.order_matters = len(self.lengths) > 1
        self.summaries = nn.ModuleList(
            EfficientProbing(width, SequenceLayout(length), num_queries=num_queries, d_out=d_out)
            for length in self.lengths
        )
        self.num_features = width // d_out
        self.fusion = AttentiveLayerFusion(
            self.num_features,
            SequenceLayout(len(self.lengths)),
            num_attention_heads=num_attention_heads,
            attention_dropout=attention_dropout,
        )

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        parts = tokens.split(list(self.lengths), dim=1)
        pooled = [
            fold(cast(EfficientProbing, ep), TokenStatistics(p)) for ep, p in zip(self.summaries, parts, strict=True)
        ]
        features, shares = self.fusion(torch.stack([each.features for each in pooled], dim=1))
        maps = [each.attention.mean(1, keepdim=True) * shares[..., i : i + 1] for i, each in enumerate(pooled)]
        return Pooled(features, torch.cat(maps, dim=-1))

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        parts = [cast(Pooling, part).multiply_adds() for part in (*self.summaries, self.fusion)]
        return MultiplyAdds(sum(p.textbook for p in parts), sum(p.folded for p in parts))
