"""Moments of tokens, computed once for all heads that read them."""

from __future__ import annotations

import torch
from torch import Tensor

from attentive_probes.layers.normalization import join_moments
from attentive_probes.layers.precision import exact_type, full_precision

CACHED_NUMBERS = 2**19  # 2 MiB of float32


class TokenStatistics:
    """Tokens `(B, T, D)` with their moments per token and per channel, each computed when first asked for.

    Moments are at least float32. They belong to the tokens alone, not to a head.

    Args:
        tokens: `(B, T, D)`.
    """

    def __init__(self, tokens: Tensor):
        self.tokens = tokens
        self.dtype = exact_type(tokens)
        self._token_moments: tuple[Tensor, Tensor] | None = None
        self._scales: dict[float, Tensor] = {}
        self._joint: tuple[Tensor, Tensor, int | Tensor] | None = None

    @property
    def token_mean(self) -> Tensor:
        """Mean over channels, `(B, T)`."""
        return self.token_moments[0]

    @property
    def token_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance over channels, `(B, T)` each; centred first, so that no precision is lost."""
        if self._token_moments is None:
            means, variances = zip(*(_token_moments(part.to(self.dtype)) for part in self._parts()), strict=True)
            self._token_moments = torch.cat(means), torch.cat(variances)
        return self._token_moments

    def layer_scale(self, eps: float) -> Tensor:
        """What a LayerNorm with this eps divides a token by, inverted: `(B, T)`."""
        if eps not in self._scales:
            self._scales[eps] = (self.token_moments[1] + eps).rsqrt()
        return self._scales[eps]

    def channel_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance `(D,)` of each channel over all tokens of the batch.

        Centred per image first, then joined by the law of total variance, so that no precision is lost.
        """
        if len(self.tokens) == 0:
            nothing = self.tokens.sum((0, 1), dtype=self.dtype)
            return nothing, nothing
        means, variances = zip(*(_image_moments(part.to(self.dtype)) for part in self._parts()), strict=True)
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

    def _parts(self) -> tuple[Tensor, ...]:
        """On a CPU a few images at a time, which stay in its cache: four times faster there."""
        _, length, width = self.tokens.shape
        if self.tokens.device.type != "cpu" or torch.compiler.is_compiling():
            return (self.tokens,)
        return self.tokens.split(max(1, CACHED_NUMBERS // (length * width)))


def _token_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(B, T)` of each token over its channels."""
    mean = tokens.mean(-1)
    norm = torch.linalg.vector_norm(tokens - mean[..., None], dim=-1)  # many times faster than var()
    return mean, norm.square() / tokens.shape[-1]


def _image_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(B, D)` of each channel over the tokens of an image."""
    weights = tokens.new_full((tokens.shape[0], 1, tokens.shape[1]), 1 / tokens.shape[1])
    with full_precision(tokens):
        mean = torch.bmm(weights, tokens)
        return mean.squeeze(1), torch.bmm(weights, (tokens - mean).square()).squeeze(1)
