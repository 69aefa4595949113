"""All layers of one backbone or several, position by position."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.layers.precision import exact_type
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.layers.self_attention import SelfAttentionBlock
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class ComboPooling(Pooling):
    """An affine map compresses what all items say about a position; a small transformer reads the positions.

    "Fantastic Features and Where to Find Them: A Probing Method to combine Features from Multiple Foundation Models"
    (ComBo), NeurIPS 2025, arXiv 2512.01405. Read it with the patches of several taps, of one backbone or of
    `JoinedBackbones`. How we differ: each token is normed before the map, so that no item matters by its scale alone;
    sizes are ours, for the paper's code was not at hand.

    Args:
        width: Token width D.
        layout: Length of the sequence, and of its items, which must be equal; without them it is one item.
        hidden: Width H of a compressed position.
        num_blocks: Number of transformer blocks.
        num_attention_heads: Attention heads h of each.
        mlp_ratio: Hidden width of their MLPs over H.

    Shapes: tokens `(B, L N, D)` of L items -> features `(B, H)`, attention `(B, h, L N)`: what the class token of the
    last block gives to each position, shared among items by their relevance; with what it gives to itself, rows sum
    to 1.

    Raises:
        ValueError: If items differ in length, or the attention heads do not divide H.
    """

    paper = "https://arxiv.org/abs/2512.01405"
    attention_kind = "partial"
    order_matters = True
    learning_rate = 0.001

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        hidden: int = 128,
        num_blocks: int = 2,
        num_attention_heads: int = 4,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        lengths = layout.lengths or (layout.num_tokens,)
        if len(set(lengths)) > 1:
            raise ValueError(f"ComBo stacks items position by position, but they have {lengths} tokens; read patches.")
        self.num_features, self.num_items, self.num_positions = hidden, len(lengths), lengths[0]
        self.num_attention_heads = num_attention_heads
        self.compress = nn.Linear(len(lengths) * width, hidden)
        self.query = nn.Parameter(torch.empty(hidden))
        self.places = nn.Parameter(torch.empty(lengths[0], hidden))
        self.stages = nn.ModuleList(
            SelfAttentionBlock(hidden, num_attention_heads, mlp_ratio) for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden, eps=1e-5)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw class token and positions from a normal distribution with standard deviation 0.02."""
        nn.init.normal_(self.query, std=0.02)
        nn.init.normal_(self.places, std=0.02)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, L N, D)`."""
        normed = F.layer_norm(tokens, tokens.shape[-1:])
        stacked = normed.unflatten(1, (self.num_items, self.num_positions)).transpose(1, 2).flatten(2)  # (B, N, L D)
        states = self.compress(stacked) + self.places
        states = torch.cat([self.query.expand(states.shape[0], 1, -1).to(states.dtype), states], dim=1)
        *first, last = cast("list[SelfAttentionBlock]", list(self.stages))
        for block in first:
            states = block(states)
        states, attention = last.with_attention(states)
        attention = attention[:, :, 0, 1:]  # (B, h, N)
        shares = self.relevance().to(exact_type(attention))
        maps = (attention[:, :, None] * shares[:, None]).flatten(2)
        return Pooled(self.norm(states[:, 0]), maps)

    def relevance(self) -> Tensor:
        """Share `(L,)` of each item in the squared weights of the compression; they sum to 1."""
        norms = self.compress.weight.unflatten(1, (self.num_items, -1)).square().sum((0, 2))
        return norms / norms.sum()

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        blocks = cast("list[SelfAttentionBlock]", list(self.stages))
        inner = sum(block.block_multiply_adds(self.num_positions + 1) for block in blocks)
        total = self.num_positions * self.compress.weight.numel() + inner
        return MultiplyAdds(total, total)
