"""A probe travels with its code, for those who do not have this package."""

from __future__ import annotations

from attentive_probes.probe.files.card import CARD
from attentive_probes.probe.files.code import AUTO_MAP, CODE_FILE
from attentive_probes.probe.modeling_probe import ProbeForImageClassification

USE_ENDS = 'print(classify("image.png"))\n```\n'
NOTE = f"""
Without the package, `pipeline(..., trust_remote_code=True)` runs `{CODE_FILE}` of this repository.
"""


def add_remote_code(probe: ProbeForImageClassification) -> None:
    """Let a probe travel with its code: it is saved beside the probe, and `trust_remote_code=True` loads it.

    Raises:
        ValueError: If its pooling or its backbone comes from somewhere else.
    """
    config = probe.config
    if config.backbone_class is not None or config.pooling_package is not None:
        stranger = config.backbone_class or f"the pooling of {config.pooling_package}"
        raise ValueError(f"The probe needs {stranger}, whose code cannot travel with it; leave the code out.")
    config.auto_map = dict(AUTO_MAP)
    card = probe.files.get(CARD)
    if isinstance(card, bytes):
        card = card.decode()
    if card is not None and NOTE not in card:
        probe.files[CARD] = card.replace(USE_ENDS, USE_ENDS + NOTE, 1)
