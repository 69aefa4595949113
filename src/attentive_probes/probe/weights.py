"""The weights behind a probe: pretrained, untrained, or those of a module of one's own; the right ones in any case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from attentive_probes.backbones import Backbone, OwnBackbone, VisionBackbone, class_name
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.setup import geometry_of


def load_backbone(
    config: ProbeConfig,
    heads: Iterable[HeadConfig],
    *,
    name: str | None = None,
    dtype: torch.dtype | str | None = None,
    **options: Any,
) -> VisionBackbone:
    """The pretrained backbone of a probe, from `name` if given, else from where the configuration says.

    Args:
        config: The probe's configuration.
        heads: The heads that will read the backbone.
        name: Another place to read the weights from.
        dtype: Precision of the weights, by default float32.
        **options: `attn_implementation`, `device_map`, `token`, `cache_dir` and the like, passed on to the backbone's
            `from_pretrained`.

    Raises:
        ValueError: If the weights cannot be found, are incomplete, or are not those of the configuration's fingerprint.
    """
    if isinstance(dtype, str):
        dtype = None if dtype == "auto" else getattr(torch, dtype)
    options.setdefault("revision", config.backbone_revision if name is None else None)
    source = name or config.backbone_name_or_path
    if source is None and config.backbone_class is not None:
        raise ValueError(
            f"The probe reads a backbone of its author's own, {config.backbone_class}; pass the module: "
            "from_pretrained(..., backbone=module)."
        )
    if source is None:
        raise ValueError(
            "The probe names no backbone; pass backbone='<Hub id or folder>', or save it with "
            "config.self_contained = True."
        )
    backbone = VisionBackbone.from_pretrained(
        source,
        config.backbone_config,
        geometry_of(config),
        taps={tap for head in heads for tap in head.reading.taps},
        dtype=dtype or torch.float32,
        **options,
    )
    _check_fingerprint(config, backbone, source)
    return backbone


def fit_own_backbone(config: ProbeConfig, module: nn.Module) -> OwnBackbone:
    """A module of one's own as the backbone of a stored probe.

    Raises:
        ValueError: If it is no backbone, gives other tokens than the probe reads, or has other weights.
    """
    backbone = OwnBackbone(module)
    ours, stored = backbone.geometry.to_dict(), geometry_of(config).to_dict()
    if ours != stored:
        raise ValueError(f"The probe reads tokens laid out as {stored}, but {class_name(module)} gives {ours}.")
    _check_fingerprint(config, backbone, class_name(module))
    return backbone


def _check_fingerprint(config: ProbeConfig, backbone: Backbone, source: str) -> None:
    found = backbone.fingerprint()
    stored = config.backbone_fingerprint
    if stored is None:
        config.backbone_fingerprint = found
    elif found is not None and found != stored and found.partition(":")[0] == stored.partition(":")[0]:
        raise ValueError(
            f"The weights of the backbone {source!r} have the fingerprint {found}, but the probe was trained on "
            f"{config.backbone_name_or_path or config.backbone_class!r} with {stored}; restore those weights, or load "
            "the probe with a config whose backbone_fingerprint is None if others are meant."
        )


def random_backbone(config: ProbeConfig, heads: Iterable[HeadConfig]) -> VisionBackbone:
    """The backbone of a probe with untrained weights, of seed 0; the configuration forgets where trained ones are."""
    taps = {tap for head in heads for tap in head.reading.taps}
    config.backbone_name_or_path = config.backbone_revision = None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionBackbone.from_config(config.backbone_config, geometry_of(config), taps)
