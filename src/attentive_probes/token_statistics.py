"""Moments of tokens, computed once for all heads that read them."""

from __future__ import annotations

import torch
from torch import Tensor


class TokenStatistics:
    """Tokens `(B, T, D)` with their moments per token and per channel, each computed when first asked for.

    Moments are at least float32. They belong to the tokens alone, not to a head: they can be stored beside cached
    tokens.

    Args:
        tokens: `(B, T, D)`.
        token_mean: `(B, T)`, the mean over channels, if known.
        token_square_mean: `(B, T)`, the mean square over channels, if known.
    """

    def __init__(self, tokens: Tensor, token_mean: Tensor | None = None, token_square_mean: Tensor | None = None):
        self.tokens = tokens
        self.dtype = torch.promote_types(tokens.dtype, torch.float32)
        self._token_mean, self._token_square_mean = token_mean, token_square_mean
        self._scales: dict[float, Tensor] = {}

    @property
    def token_mean(self) -> Tensor:
        """Mean over channels, `(B, T)`."""
        if self._token_mean is None:
            self._token_mean = self.tokens.mean(-1, dtype=self.dtype)
        return self._token_mean

    @property
    def token_square_mean(self) -> Tensor:
        """Mean square over channels, `(B, T)`."""
        if self._token_square_mean is None:
            norm = torch.linalg.vector_norm(self.tokens, dim=-1, dtype=self.dtype)  # many times faster than var()
            self._token_square_mean = norm.square() / self.tokens.shape[-1]
        return self._token_square_mean

    def layer_scale(self, eps: float) -> Tensor:
        """What a LayerNorm with this eps divides a token by, inverted: `(B, T)`."""
        if eps not in self._scales:
            variance = (self.token_square_mean - self.token_mean.square()).clamp(min=0)
            self._scales[eps] = (variance + eps).rsqrt()
        return self._scales[eps]

    def channel_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance `(D,)` of each channel over all tokens of the batch.

        Centred per image first, then joined by the law of total variance, so that no precision is lost.
        """
        image_mean = _column_mean(self.tokens.to(self.dtype))
        centred = self.tokens.to(self.dtype) - image_mean[:, None]
        within = _column_mean(centred.square_() if not centred.requires_grad else centred.square())
        mean = image_mean.mean(0)
        return mean, within.mean(0) + (image_mean - mean).square().mean(0)


def _column_mean(values: Tensor) -> Tensor:
    ones = values.new_ones(values.shape[0], 1, values.shape[1])
    return torch.bmm(ones, values).squeeze(1) / values.shape[1]
