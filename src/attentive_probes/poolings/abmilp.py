"""Attention-based multiple-instance pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.checks import unknown_name
from attentive_probes.layers.positions import sincos_positions
from attentive_probes.layers.queries import MultiplyAdds, Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import Pooled, Pooling, fold
from attentive_probes.tokens import SequenceLayout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class AbmilpPooling(Pooling):
    """AbMILP: a softmax over a learned scalar gate per token weights the tokens themselves.

    "Beyond [cls]: Exploring the True Potential of Masked Image Modeling Representations", ICCV 2025, arXiv 2412.03215,
    after arXiv 1802.04712; self-attention as in 2005.12991. The defaults are the paper's method: one scoring vector.
    How we differ: `content` leaves out the tokens that precede the grid, not whatever comes first; positions are fixed;
    the bias of the gate's last layer, which cancels, is gone.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence.
        depth: Linear layers of the gate.
        activation: Between them: `tanh` or `relu`.
        self_attention: Single-head self-attention before the gate: `none`; `map`, for the gate only; `both`, for the
            gate and the pooled tokens.
        cond: `pe` adds fixed sin-cos positions to what the gate sees, else `none`.
        content: `all` tokens, or `patch`: those of the grid.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, 1, T)`, rows sum to 1, zero on tokens left out.

    Raises:
        ValueError: If an option is unknown, or needs a grid (or a width divisible by four) that is not there.
    """

    paper = "https://arxiv.org/abs/2412.03215"
    query_parameters = frozenset({"gate"})

    positions: Tensor | None

    def __init__(
        self,
        width: int,
        layout: SequenceLayout,
        *,
        depth: int = 1,
        activation: str = "relu",
        self_attention: str = "none",
        cond: str = "none",
        content: str = "all",
    ):
        super().__init__()
        choices = {"activation": (activation, tuple(ACTIVATIONS)), "cond": (cond, ("none", "pe"))}
        choices |= {"self_attention": (self_attention, ("none", "map", "both")), "content": (content, ("all", "patch"))}
        for option, (value, valid) in choices.items():
            if value not in valid:
                raise ValueError(unknown_name(option, value, valid))
        if depth < 1:
            raise ValueError(f"depth={depth}; the gate needs at least one layer.")
        if layout.grid is None and (cond == "pe" or content == "patch"):
            raise ValueError("cond='pe' and content='patch' need a reading that ends with the patches of one tap.")
        self.num_features, self.width = width, width
        self.skip = layout.num_prefix_tokens if content == "patch" else 0
        self.num_tokens = layout.num_tokens - self.skip
        self.order_matters = cond == "pe" or self.skip > 0
        self.activation, self.pools_mixed = activation, self_attention == "both"
        self.qkv = nn.Linear(width, 3 * width, bias=False) if self_attention != "none" else None
        self.out_map = nn.Linear(width, width) if self_attention != "none" else None
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.gate = nn.Linear(width, 1, bias=False)
        self.folds = depth == 1 and self_attention == "none"
        self.grid = layout.grid if cond == "pe" else None
        self.register_buffer("positions", self._fixed_positions(), persistent=False)

    def reset_parameters(self) -> None:
        """Fill the fixed positions again, which are not saved."""
        if self.positions is not None:
            self.positions.copy_(cast(Tensor, self._fixed_positions()))

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        if self.folds:
            return fold(self, TokenStatistics(tokens))
        tokens = tokens[:, self.skip :]
        mixed = self._mixed(tokens)
        gated = mixed if self.positions is None else mixed + self.positions.to(mixed.dtype)
        for linear in self.hidden:
            gated = ACTIVATIONS[self.activation](linear(gated))
        logits = self.gate(gated).mT  # (B, 1, T)
        attention = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        content = mixed if self.pools_mixed else tokens
        features = torch.bmm(attention.to(content.dtype), content).squeeze(1)
        return Pooled(features, F.pad(attention, (self.skip, 0)))

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The gate of depth one as a query; positions and tokens left out become a bias per token."""
        bias = None
        if self.positions is not None:
            bias = self.gate(self.positions.to(self.gate.weight.dtype)).mT
        if self.skip:
            bias = self.gate.weight.new_zeros(1, self.num_tokens) if bias is None else bias
            bias = F.pad(bias, (self.skip, 0), value=float("-inf"))
        return Queries(self.gate.weight, logit_bias=bias)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """The pooled token itself."""
        return pooled.squeeze(1)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        tokens, width = self.num_tokens, self.width
        mixing = 0 if self.qkv is None else 4 * tokens * width * width + 2 * tokens * tokens * width
        total = mixing + len(self.hidden) * tokens * width * width + 2 * tokens * width
        return MultiplyAdds(total, total)

    def _fixed_positions(self) -> Tensor | None:
        if self.grid is None:
            return None
        table = sincos_positions(self.width, self.grid)
        return F.pad(table, (0, 0, self.num_tokens - len(table), 0))  # zero for tokens before the grid

    def _mixed(self, tokens: Tensor) -> Tensor:
        if self.qkv is None or self.out_map is None:
            return tokens
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        return self.out_map(F.scaled_dot_product_attention(queries, keys, values))
