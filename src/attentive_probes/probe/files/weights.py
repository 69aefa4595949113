"""The weights behind a probe: pretrained, untrained, or those of a module of one's own; the right ones in any case."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from attentive_probes.backbones import Backbone, CustomBackbone, VisionBackbone, class_name
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.making.describe import geometry_of

logger = logging.getLogger(__name__)


def load_backbone(
    config: ProbeConfig,
    heads: Iterable[HeadConfig],
    *,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> VisionBackbone:
    """The pretrained backbone of a probe, from `name` if given, else from where the configuration says.

    Args:
        config: The probe's configuration.
        heads: The heads that will read the backbone.
        name: Another place to read the weights from.
        dtype: Precision of the weights, by default float32.
        **options: `attn_implementation`, `device_map`, `quantization_config`, `token`, `cache_dir` and the like,
            passed on to the backbone's `from_pretrained`.

    Raises:
        ValueError: If the weights cannot be found, are incomplete, or are not those of the configuration's fingerprint.
    """
    options.setdefault("revision", config.backbone_revision if name is None else None)
    source = name or config.backbone_name_or_path
    if source is None and config.backbone_class is not None:
        raise ValueError(
            f"The probe reads a backbone of its author's own, {config.backbone_class}; pass the module: "
            "from_pretrained(..., backbone=module)."
        )
    if source is None and config.backbone_seed is not None:
        return random_backbone(config, heads).to(dtype or torch.float32)
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
    check_weights(config, backbone, source)
    return backbone


def fit_own_backbone(config: ProbeConfig, module: nn.Module) -> CustomBackbone:
    """A module of one's own as the backbone of a stored probe.

    Raises:
        ValueError: If it is no backbone, gives other tokens than the probe reads, or has other weights.
    """
    backbone = CustomBackbone(module)
    ours, stored = backbone.geometry.to_dict(), geometry_of(config).to_dict()
    if ours != stored:
        raise ValueError(f"The probe reads tokens laid out as {stored}, but {class_name(module)} gives {ours}.")
    check_weights(config, backbone, class_name(module))
    return backbone


def check_weights(config: ProbeConfig, backbone: Backbone, source: str) -> None:
    """Check that a backbone has the weights that a probe was trained on; a new probe notes them.

    Where the precision is another one, or the weights are quantized, the backbone is read once more as the training
    read it: what counts are the tensors of the file, before any cast.

    Args:
        config: Configuration of the probe.
        backbone: Its backbone, loaded just now or given.
        source: What to call it.

    Raises:
        ValueError: If it has other weights.
    """
    found, stored, compared = backbone.fingerprint(), config.backbone_fingerprint, backbone
    precision = (stored or "").partition(":")[0]
    if found is None and not backbone.is_quantized:
        return  # not in memory
    is_comparable = found is not None and (stored is None or found.partition(":")[0] == precision)
    if not is_comparable and isinstance(backbone, VisionBackbone) and backbone.origin is not None:
        compared = backbone.reread(getattr(torch, precision or "float32"))
        found = compared.fingerprint()
        if backbone.is_quantized:
            backbone.full_fingerprint = found
    elif not is_comparable:
        if stored is not None:
            logger.warning(
                "The weights of the backbone %s cannot be compared with those the probe was trained on.", source
            )
        return
    if stored is None:
        config.backbone_fingerprint = found
    elif found is not None and not compared.has_fingerprint(stored):
        raise ValueError(
            f"The weights of the backbone {source!r} have the fingerprint {found}, but the probe was trained on "
            f"{config.backbone_name_or_path or config.backbone_class!r} with {stored}; restore those weights, or load "
            "the probe with a config whose backbone_fingerprint is None if others are meant."
        )


def random_backbone(config: ProbeConfig, heads: Iterable[HeadConfig]) -> VisionBackbone:
    """The backbone of a probe with untrained weights; the configuration forgets where trained ones are.

    They are drawn by `backbone_seed`, or by 0, which the configuration then notes.
    """
    taps = {tap for head in heads for tap in head.reading.taps}
    config.backbone_name_or_path = config.backbone_revision = None
    config.backbone_seed = config.backbone_seed or 0
    with torch.random.fork_rng():
        torch.manual_seed(config.backbone_seed)
        backbone = VisionBackbone.from_config(config.backbone_config, geometry_of(config), taps)
    check_weights(config, backbone, f"untrained weights of seed {config.backbone_seed}")
    return backbone
