"""The attention pool of CLIP's ResNets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.attend import attend
from attentive_probes.layers.multihead import check_heads, fold_keys, map_values, norm_pooled, norm_queries
from attentive_probes.layers.precision import full_precision
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class ClipPooling(Pooling):
    """CLIP's attention pool: the mean token queries itself and all tokens, with learned positions.

    "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv 2103.00020; with the
    leading LayerNorm of the form the EP paper studies. How we differ: only the row that is read is computed, keys,
    values and the LayerNorm fold per image, the key bias, which has no effect, is gone, and any number of tokens may
    have positions.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; its length is that of the table of positions.
        num_attention_heads: Number of attention heads h.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, h, T)`; one minus the sum of a row is what the mean
    token gives to itself.

    Raises:
        ValueError: If the attention heads do not divide D.
    """

    paper = "https://arxiv.org/abs/2103.00020"
    learning_rate = 0.001
    query_parameters = frozenset({"query_map"})
    order_matters = True
    attention_kind = "partial"

    def __init__(self, width: int, layout: SequenceLayout, *, num_attention_heads: int = 4):
        super().__init__()
        check_heads(width, num_attention_heads)
        self.num_attention_heads = num_attention_heads
        self.num_features, self.num_tokens = width, layout.num_tokens
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.positions = nn.Parameter(torch.empty(layout.num_tokens + 1, width))
        self.query_map = nn.Linear(width, width)
        self.key_map = nn.Linear(width, width, bias=False)
        self.value_map = nn.Linear(width, width)
        self.out_map = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw positions and maps with standard deviation `D ** -0.5`, their biases zero."""
        std = self.num_features**-0.5
        nn.init.trunc_normal_(self.positions, std=std)
        for linear in (self.query_map, self.key_map, self.value_map):
            nn.init.trunc_normal_(linear.weight, std=std)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        scale = TokenStatistics(tokens).layer_scale(self.norm.eps)
        with full_precision(tokens):
            average = torch.bmm((scale / self.num_tokens)[:, None], tokens.to(scale.dtype))  # (B, 1, D)
        mean = (norm_pooled(average, self.norm).squeeze(1) + self.positions[0]).to(self.positions.dtype)
        vectors = fold_keys(self.query_map(mean), self.key_map, self.num_attention_heads)  # (B, h, D)
        # What `norm_queries` drops is the same for all tokens, but not for the sink: it leaves there as well.
        sink = (vectors * (mean - self.norm.bias)[:, None]).sum(-1)
        positions = self.positions[1:].to(vectors.dtype)
        pooled, attention = attend(tokens, norm_queries(vectors, self.norm), scale, vectors @ positions.mT, sink)
        total = attention.sum(-1)
        own = (1 - total)[..., None].to(pooled.dtype) * mean[:, None]
        placed = attention @ positions
        values = map_values(norm_pooled(pooled, self.norm, total) + placed + own, self.value_map)
        return Pooled(self.out_map(values), attention)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`; positions are counted like tokens."""
        width, rows = self.num_features, self.num_tokens + 1
        textbook = 4 * rows * width * width + 2 * rows * rows * width
        # Twice the pooling, for positions, and one row for the mean token.
        folded = 4 * width * width + 4 * rows * self.num_attention_heads * width + self.num_tokens * width
        return MultiplyAdds(textbook, folded)
