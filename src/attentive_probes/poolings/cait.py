"""Class attention."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from attentive_probes.layers.multihead import (
    Mlp,
    block_multiply_adds,
    check_heads,
    fold_keys,
    map_values,
    norm_pooled,
    norm_queries,
)
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import Pooled, Pooling, fold
from attentive_probes.tokens import SequenceLayout

LAYER_SCALE = 1e-5


class ClassAttention(nn.Module):
    """One class-attention block: a class token `(D,)` or `(B, D)` attends to itself and the tokens, then an MLP.

    Args:
        width: Token width D.
        num_attention_heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP over D.
    """

    def __init__(self, width: int, num_attention_heads: int, mlp_ratio: float):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.query_map = nn.Linear(width, width)
        self.key_map = nn.Linear(width, width, bias=False)
        self.value_map = nn.Linear(width, width)
        self.out_map = nn.Linear(width, width)
        self.mlp = Mlp(width, mlp_ratio)
        self.gamma1, self.gamma2 = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start both residual branches at 1e-5 of their size."""
        nn.init.constant_(self.gamma1, LAYER_SCALE)
        nn.init.constant_(self.gamma2, LAYER_SCALE)

    def queries(self, token: Tensor, statistics: TokenStatistics) -> Queries:
        """The class token's query per attention head; the class token itself is the sink of the attention."""
        normed = self.norm1(token)
        vectors = fold_keys(self.query_map(normed), self.key_map, self.num_attention_heads)  # (..., h, D)
        # What `norm_queries` drops is the same for all tokens, but not for the sink: it leaves there as well.
        sink = (vectors * (normed - self.norm1.bias)[..., None, :]).sum(-1)
        return Queries(norm_queries(vectors, self.norm1), statistics.layer_scale(self.norm1.eps), sink=sink)

    def readout(self, token: Tensor, pooled: Tensor, attention: Tensor) -> Tensor:
        """The class token after the block, `(B, D)`."""
        total = attention.sum(-1)  # (B, h); the rest is the class token's own share
        own = (1 - total)[..., None].to(pooled.dtype) * self.norm1(token)[..., None, :]
        values = map_values(norm_pooled(pooled, self.norm1, total) + own, self.value_map)
        token = token + self.gamma1 * self.out_map(values)
        return token + self.gamma2 * self.mlp(self.norm2(token))


class CaitPooling(Pooling):
    """CaiT's class-attention: a learned class token attends to itself and the tokens, block after block.

    "Going Deeper with Image Transformers", ICCV 2021, arXiv 2103.17239. How we differ: keys, values and the LayerNorm
    fold around the pooling, and the key bias, which has no effect, is gone.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; any is accepted.
        num_attention_heads: Number of attention heads h.
        num_blocks: Number of class-attention blocks; with one, the query does not depend on the image.
        mlp_ratio: Hidden width of the MLPs over D.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)` of the last block; one minus the sum of a row
    is what the class token gives to itself.

    Raises:
        ValueError: If the attention heads do not divide D, or there is no block.
    """

    paper = "https://arxiv.org/abs/2103.17239"
    learning_rate = 0.001
    attention_kind = "partial"

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        num_attention_heads: int = 4,
        num_blocks: int = 1,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        check_heads(width, num_attention_heads)
        if num_blocks < 1:
            raise ValueError(f"num_blocks={num_blocks}; there must be at least one.")
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.folds = num_blocks == 1
        self.query = nn.Parameter(torch.empty(width))
        self.stages = nn.ModuleList(ClassAttention(width, num_attention_heads, mlp_ratio) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the class token from a normal distribution with standard deviation 0.02."""
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        statistics = TokenStatistics(tokens)
        if self.folds:
            return fold(self, statistics)
        token: Tensor = self.query
        for stage in cast("list[ClassAttention]", self.stages):
            pooled, attention = stage.queries(token, statistics).attend(tokens)
            token = stage.readout(token, pooled, attention)
        return Pooled(self.norm(token), attention)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The class token's query per attention head."""
        return self._only.queries(self.query, statistics)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """The class token after the block and the final norm."""
        return self.norm(self._only.readout(self.query, pooled, attention))

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        heads, mlp = self._only.num_attention_heads, self._only.mlp
        one = block_multiply_adds(self.num_features, self.num_tokens + 1, heads, mlp)
        later = len(self.stages) - 1  # blocks whose query depends on the image: it is mapped, and keys fold into it
        total = MultiplyAdds(*(len(self.stages) * count for count in one))
        return total._replace(folded=total.folded + later * 2 * self.num_features**2)

    @property
    def _only(self) -> ClassAttention:
        return cast(ClassAttention, self.stages[0])
