"""Moments of tokens, computed once for all heads that read them."""

from __future__ import annotations

import torch
from torch import Tensor

from attentive_probes.layers.normalization import join_moments

CACHED_NUMBERS = 2**19  # 2 MiB of float32


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
        self._joint: tuple[Tensor, Tensor, int | Tensor] | None = None

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

        Centred per image first, then joined by the law of total variance, so that no precision is lost. On a CPU a few
        images at a time, which stay in its cache: four times faster there.
        """
        batch, length, width = self.tokens.shape
        if batch == 0:
            nothing = self.tokens.sum((0, 1), dtype=self.dtype)
            return nothing, nothing
        on_cpu = self.tokens.device.type == "cpu" and not torch.compiler.is_compiling()
        chunk = max(1, CACHED_NUMBERS // (length * width)) if on_cpu else batch
        means, variances = zip(*(_image_moments(part.to(self.dtype)) for part in self.tokens.split(chunk)), strict=True)
        image_mean = torch.cat(means)
        mean = image_mean.mean(0)
        return mean, torch.cat(variances).mean(0) + (image_mean - mean).square().mean(0)

    def joint_channel_moments(self) -> tuple[Tensor, Tensor, int | Tensor]:
        """`channel_moments` over the images of all processes, and the number of tokens behind them; exchanged once.

        Raises:
            ValueError: If there is a single token.
        """
        if self._joint is None:
            self._joint = join_moments([self.channel_moments()], self.tokens.shape[:2].numel())[0]
        return self._joint


def _image_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(B, D)` of each channel over the tokens of an image."""
    weights = tokens.new_full((tokens.shape[0], 1, tokens.shape[1]), 1 / tokens.shape[1])
    mean = torch.bmm(weights, tokens)
    return mean.squeeze(1), torch.bmm(weights, (tokens - mean).square()).squeeze(1)
