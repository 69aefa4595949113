"""What a head costs, known from its configuration alone: parameters, multiply-adds, bytes of its tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch

from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.making.describe import build_head, layouts_of, reading_of


class HeadCost(NamedTuple):
    """Costs of a head, per image.

    Args:
        parameters: Parameters of pooling, normalization and classifier.
        pooling: Multiply-adds of the pooling, as written in its paper and folded.
        classifier: Multiply-adds of the classifier.
        token_bytes: Bytes of the tokens that it reads, at 16 bits.
    """

    parameters: int
    pooling: MultiplyAdds
    classifier: int
    token_bytes: int

    @property
    def multiply_adds(self) -> int:
        """Of pooling and classifier, as they are computed here."""
        return self.pooling.folded + self.classifier


def cost_of(config: ProbeConfig, head_config: HeadConfig) -> HeadCost:
    """The costs of a head on the backbone that a configuration describes; nothing is allocated.

    Raises:
        ValueError: If the head does not fit to the backbone.
    """
    with torch.device("meta"):
        head = build_head(config, head_config)
    reading = reading_of(config, head_config)
    layouts = layouts_of(config, reading)
    lengths = zip(reading.items, reading.lengths(layouts), strict=True)
    return HeadCost(
        sum(parameter.numel() for parameter in head.parameters()),
        head.pooling.multiply_adds(),
        head.classifier.weight.numel(),
        sum(2 * length * layouts[item.tap].width for item, length in lengths),
    )
