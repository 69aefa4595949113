"""From the name of a backbone to the configuration of a probe on it, before anything large is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from transformers import BaseImageProcessor, PreTrainedConfig

from attentive_probes.backbones import (
    ALL,
    Geometry,
    VisionBackbone,
    find_geometry,
    fit_processor,
    image_size_of,
    is_timm_processor,
    load_backbone_config,
    load_image_processor,
    portable_name,
    resolve_revision,
    timm_processor,
)
from attentive_probes.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.head import ProbeHead
from attentive_probes.tokens import Reading, TokenLayout


def describe_probe(
    name: str,
    *,
    labels: Sequence[str] | None = None,
    num_labels: int | None = None,
    problem_type: str | None = None,
    revision: str | None = None,
    image_size: tuple[int, int] | None = None,
    trust_remote_code: bool = False,
) -> tuple[ProbeConfig, BaseImageProcessor | None]:
    """Everything about a probe but its head and its weights; nothing large is read.

    Args:
        name: Hub id, local folder or `embedded:<name>` of the backbone.
        labels: Names of the classes.
        num_labels: Number of classes or targets C, when they have no names.
        problem_type: `single_label_classification` (default), `multi_label_classification` or `regression`.
        revision: Branch, tag or commit of a Hub backbone; the commit is stored.
        image_size: Height and width in pixels; by default what the image processor produces.
        trust_remote_code: Whether code from the backbone's repository may run.

    Returns:
        The configuration without a head, and an image processor that gives images of this size (`None` if the backbone
        comes without one).

    Raises:
        ValueError: If the backbone cannot be found or read, or the labels are missing or contradict each other.
    """
    if labels is None and num_labels is None:
        raise ValueError("Pass `labels`, the names of the classes, or `num_labels`.")
    if labels is not None and num_labels not in (None, len(labels)):
        raise ValueError(f"num_labels={num_labels} contradicts the {len(labels)} names in `labels`.")
    names = list(labels) if labels is not None else [f"LABEL_{i}" for i in range(cast(int, num_labels))]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"`labels` must be distinct names, at least one; got {names}.")
    commit = resolve_revision(name, revision)
    backbone_config = load_backbone_config(name, commit, trust_remote_code)
    processor = _processor_of(name, commit, backbone_config)
    geometry = find_geometry(backbone_config, image_size or image_size_of(backbone_config, processor))
    if processor is not None:
        processor = fit_processor(processor, geometry.image_size, getattr(backbone_config, "num_channels", 3))
    config = ProbeConfig(
        backbone_name_or_path=portable_name(name),
        backbone_revision=commit,
        backbone_config=_portable_config(backbone_config),
        **geometry.to_dict(),
        id2label=dict(enumerate(names)),
        label2id={label: i for i, label in enumerate(names)},
        problem_type=problem_type or "single_label_classification",
    )
    return config, processor


def set_head(config: ProbeConfig, head: HeadConfig) -> None:
    """Store a head in a probe's configuration, after building it without memory to see that it fits.

    Raises:
        ValueError: If it does not fit the backbone.
    """
    with torch.device("meta"):
        build_head(config, head)
    config.head = head.to_dict()


def build_head(config: ProbeConfig, head: HeadConfig) -> ProbeHead:
    """A head with fresh weights for the backbone of `config`.

    Raises:
        ValueError: If it does not fit the backbone.
    """
    reading = reading_of(config, head)
    layouts = layouts_of(config, reading)
    return ProbeHead(head, reading.width(layouts), reading.sequence_layout(layouts), config.num_labels, reading)


def reading_of(config: ProbeConfig, head: HeadConfig) -> Reading:
    """What a head reads of the backbone of `config`, with the tap `all` spelled out."""
    return head.reading.expanded(ALL, geometry_of(config).all_taps)


def layouts_of(config: ProbeConfig, reading: Reading) -> dict[str, TokenLayout]:
    """Tap -> token layout, for every tap of a reading.

    Raises:
        ValueError: If the backbone does not offer a tap.
    """
    return geometry_of(config).layouts_of(reading.taps)


def geometry_of(config: ProbeConfig) -> Geometry:
    """The backbone's geometry as stored in a probe's configuration."""
    return Geometry.from_dict(config.token_layouts or {}, config.num_layers, config.image_size)


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


def _check_fingerprint(config: ProbeConfig, backbone: VisionBackbone, source: str) -> None:
    found = backbone.fingerprint()
    stored = config.backbone_fingerprint
    if stored is None:
        config.backbone_fingerprint = found
    elif found is not None and found != stored and found.partition(":")[0] == stored.partition(":")[0]:
        raise ValueError(
            f"The weights of the backbone {source!r} have the fingerprint {found}, but the probe was trained on "
            f"{config.backbone_name_or_path!r} with {stored}; restore those weights, or load the probe with a config "
            "whose backbone_fingerprint is None if others are meant."
        )


def random_backbone(config: ProbeConfig, heads: Iterable[HeadConfig]) -> VisionBackbone:
    """The backbone of a probe with untrained weights, of seed 0; the configuration forgets where trained ones are."""
    taps = {tap for head in heads for tap in head.reading.taps}
    config.backbone_name_or_path = config.backbone_revision = None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionBackbone.from_config(config.backbone_config, geometry_of(config), taps)


def _processor_of(name: str, commit: str | None, backbone_config: PreTrainedConfig) -> BaseImageProcessor | None:
    try:
        processor = load_image_processor(name, revision=commit)
    except ValueError:
        return None  # a bare backbone; sizes come from its configuration
    return timm_processor(backbone_config) if is_timm_processor(processor) else processor


def _portable_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A copy (the live object changes when a model is built from it) without the traces of where it was read."""
    return {key: value for key, value in config.to_dict().items() if key not in ("_name_or_path", "architectures")}
