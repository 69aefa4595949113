"""What a pooling hands to the primitive, and what it costs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from attentive_probes.layers.attend import attend


class Queries(NamedTuple):
    """What `attend` needs of a pooling: vectors `(M, D)` in token space, scale included, and what else acts on logits.

    `token_scale` `(B, T)`, `logit_bias` `(M, T)`, `sink` `(M,)` and `dropout` are arguments of `attend`; `token_mean`
    `(B, T)`, and `channels`, mean and scale `(D,)` of a batch normalization on tokens, are kept for the readout.
    """

    vectors: Tensor
    token_scale: Tensor | None = None
    logit_bias: Tensor | None = None
    sink: Tensor | None = None
    dropout: float = 0.0
    token_mean: Tensor | None = None
    channels: tuple[Tensor, Tensor] | None = None

    def attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled tokens `(B, M, D)` and attention `(B, M, T)`."""
        return attend(tokens, self.vectors, self.token_scale, self.logit_bias, self.sink, self.dropout)


class MultiplyAdds(NamedTuple):
    """Multiply-adds per image: as the formulas are written, and as this package computes them."""

    textbook: int
    folded: int
