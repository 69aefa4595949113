"""The attentive probe of V-JEPA."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from attentive_probes.layers.multihead import (
    Mlp,
    block_multiply_adds,
    check_heads,
    fold_keys,
    map_normed_values,
    norm_queries,
)
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.self_attention import SelfAttentionBlock
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import Pooled, QueryPooling, fold
from attentive_probes.tokens import SequenceLayout


class JepaPooling(QueryPooling):
    """V-JEPA's attentive pooler: a cross-attention block with LayerNorm on tokens, residuals and an MLP.

    "Revisiting Feature Prediction for Learning Visual Representations from Video", TMLR 2024, arXiv 2404.08471. The
    query is not normed; the residual starts from the raw query. How we differ: keys, values and the LayerNorm fold
    around the pooling, and the key bias, which has no effect, is gone.

    With `num_self_blocks: 3` and `output_map: false` it is what V-JEPA 2 (arXiv 2506.09985) evaluates with: transformer
    blocks over the tokens before the cross-attention, which has no output map there.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.
        mlp_ratio: Hidden width of the MLPs over D.
        num_self_blocks: Number of transformer blocks before the cross-attention.
        output_map: Whether the cross-attention ends in a map of its values.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`, rows sum to 1.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2404.08471"
    learning_rate = 0.0003

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        num_attention_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_self_blocks: int = 0,
        output_map: bool = True,
    ):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.folds = num_self_blocks == 0
        self.stages = nn.ModuleList(
            SelfAttentionBlock(width, num_attention_heads, mlp_ratio) for _ in range(num_self_blocks)
        )
        self.query = nn.Parameter(torch.empty(width))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)
        self.query_map = nn.Linear(width, width)
        self.key_map = nn.Linear(width, width, bias=False)
        self.value_map = nn.Linear(width, width)
        self.out_map = nn.Linear(width, width) if output_map else nn.Identity()
        self.mlp = Mlp(width, mlp_ratio)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw query and weights with standard deviation 0.02, biases zero; output maps of layer i over sqrt(2 i)."""
        nn.init.trunc_normal_(self.query, std=0.02)
        for number, part in enumerate([*self.stages, self], start=1):
            layer = min(number, max(1, len(self.stages)))  # the cross-attention counts as the last block
            own = [m for name, m in part.named_modules() if isinstance(m, nn.Linear) and not name.startswith("stages.")]
            for linear in own:
                is_last = linear in (part.out_map, part.mlp.fc2)
                nn.init.trunc_normal_(linear.weight, std=0.02 * (2 * layer) ** -0.5 if is_last else 0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        for block in self.stages:
            tokens = block(tokens)
        return fold(self, TokenStatistics(tokens))

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The query per attention head."""
        vectors = fold_keys(self.query_map(self.query), self.key_map, self.num_attention_heads)
        scale = statistics.layer_scale(self.norm1.eps)
        return Queries(norm_queries(vectors, self.norm1), scale, token_mean=statistics.token_mean)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """Map values and output, add the query and the MLP."""
        values = map_normed_values(pooled, attention, queries, self.norm1, self.value_map)
        features = self.query + self.out_map(values)
        return features + self.mlp(self.norm2(features))

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        cross = block_multiply_adds(self.num_features, self.num_tokens, self.num_attention_heads, self.mlp)
        maps = 0 if isinstance(self.out_map, nn.Linear) else self.num_features**2
        blocks = sum(cast(SelfAttentionBlock, b).block_multiply_adds(self.num_tokens) for b in self.stages)
        return MultiplyAdds(*(count - maps + blocks for count in cross))
