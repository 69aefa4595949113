"""What a probe returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class ProbeOutput(ModelOutput):
    """Output of a probe.

    Args:
        loss: Scalar, when labels were given.
        logits: `(B, C)`.
        attention: `(B, M, T)` over the tokens that the head reads, in the order of its reading.
        features: `(B, F)`, what the pooling made, before normalization.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    attention: Tensor | None = None
    features: Tensor | None = None


@dataclass
class ProbeFeatures(ModelOutput):
    """Output of a probe as a model of features, which come first.

    Args:
        features: `(B, F)`, what the pooling made, before normalization.
        attention: `(B, M, T)`, as in `ProbeOutput`.
        logits: `(B, C)`.
    """

    features: Tensor | None = None
    attention: Tensor | None = None
    logits: Tensor | None = None
