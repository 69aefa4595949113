"""How much each item of a reading, and each backbone, weighs in a head that combines them."""

from __future__ import annotations

from attentive_probes.backbones.joined import relevance_by_backbone
from attentive_probes.poolings.combo import ComboPooling
from attentive_probes.probe.modeling_probe import ProbeForImageClassification


def relevance(probe: ProbeForImageClassification) -> tuple[dict[str, float], dict[str, float]]:
    """Shares by reading item, and by backbone where it reads several ("ComBo", arXiv 2512.01405); each sum to 1.

    Args:
        probe: A probe with the pooling `combo`.

    Raises:
        ValueError: If it has another pooling.
    """
    pooling = probe.head.pooling
    if not isinstance(pooling, ComboPooling):
        raise ValueError(f"The pooling {probe.config.head_config.pooling!r} has no relevance; combo has.")
    items = map(str, probe.head.reading.items)
    by_item = dict(zip(items, pooling.relevance().tolist(), strict=True))
    return by_item, relevance_by_backbone(by_item)
