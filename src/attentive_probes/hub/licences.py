"""The licence of a backbone, carried over to the probes on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import HFValidationError

from attentive_probes.assets import EMBEDDED_PREFIX, embedded_path
from attentive_probes.probe.configuration_probe import ProbeConfig


def backbone_licence(config: ProbeConfig) -> str | None:
    """The licence that the backbone's own card names, or `None` if there is no card that can be reached."""
    name = config.backbone_name_or_path
    return None if name is None else _licence_of(name, config.backbone_revision)


@cache  # every head of a run has a card
def _licence_of(name: str, revision: str | None) -> str | None:
    if name.startswith(EMBEDDED_PREFIX):
        path = Path(embedded_path(name)) / "README.md"
    elif Path(name).is_dir():
        path = Path(name) / "README.md"
    else:
        try:
            path = Path(hf_hub_download(name, "README.md", revision=revision))
        except (OSError, ValueError, HFValidationError):  # errors of the Hub are OSErrors or ValueErrors
            return None
    if not path.is_file():
        return None
    return ModelCard.load(path, ignore_metadata_errors=True).data.license
