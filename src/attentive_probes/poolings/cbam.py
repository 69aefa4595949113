"""The convolutional block attention module as a pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings.base import Pooled, Pooling
from attentive_probes.tokens import SequenceLayout


class CbamPooling(Pooling):
    """CBAM: a gate per channel, then a gate per position from a convolution; the mean of the gated map.

    "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521, as a pooling in the form the EP paper
    studies. How we differ: any grid is accepted.

    Args:
        width: Token width D.
        layout: Length and grid of the sequence; it must be the patches of one tap.
        reduction: The channel gate passes through `D / reduction` channels.
        kernel_size: Side of the convolution in patches, odd.

    Shapes: tokens `(B, T, D)` -> features `(B, D)`, attention `(B, 1, T)`: gates between 0 and 1, not normalized.

    Raises:
        ValueError: If the tokens are not a grid, or the kernel has no centre.
    """

    paper = "https://arxiv.org/abs/1807.06521"
    query_parameters = frozenset({"fc1", "fc2", "conv"})
    order_matters = True
    attention_kind = "gates"

    def __init__(self, width: int, layout: SequenceLayout, *, reduction: int = 16, kernel_size: int = 7):
        super().__init__()
        if layout.grid is None or layout.num_prefix_tokens:
            raise ValueError(
                "The pooling 'cbam' needs tokens on a grid: read the patches of one tap, and nothing else."
            )
        if kernel_size % 2 == 0 or reduction < 1:
            raise ValueError(f"kernel_size={kernel_size} must be odd and reduction={reduction} at least 1.")
        squeezed = max(1, int(width / reduction + 0.5))
        self.num_features, self.grid = width, layout.grid
        self.fc1 = nn.Linear(width, squeezed, bias=False)
        self.fc2 = nn.Linear(squeezed, width, bias=False)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = BatchNorm(1, affine=True, eps=1e-5)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        squeezed = self.fc2(self.fc1(tokens.mean(1)).relu()) + self.fc2(self.fc1(tokens.amax(1)).relu())
        gated = tokens * squeezed.sigmoid()[:, None]
        summary = torch.stack([gated.mean(-1), gated.amax(-1)], dim=1).unflatten(-1, self.grid)  # (B, 2, rows, columns)
        gates = self.norm(self.conv(summary).flatten()[:, None]).sigmoid().view(tokens.shape[0], 1, tokens.shape[1])
        return Pooled((gated * gates.mT + tokens).relu().mean(1), gates)

    def multiply_adds(self) -> MultiplyAdds:
        """Per image, see `Pooling`."""
        total = 4 * self.fc1.weight.numel() + self.conv.weight.numel() * self.grid[0] * self.grid[1]
        return MultiplyAdds(total, total)
