"""From the name of a backbone to the configuration of a probe on it, before anything large is read."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, cast

import torch
from transformers import BaseImageProcessor, PreTrainedConfig

from attentive_probes.backbones import (
    ALL,
    CustomBackbone,
    Geometry,
    class_name,
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
from attentive_probes.poolings import known_poolings, package_of
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.making.placement import HUB, PLACEMENT, refuse_rest, take_placement
from attentive_probes.problems import find_problem
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.tokens import Reading, TokenLayout


def describe_probe(
    source: str | CustomBackbone,
    *,
    labels: Sequence[str] | LabelTable | None = None,
    num_labels: int | None = None,
    problem_type: str | None = None,
    revision: str | None = None,
    image_size: tuple[int, int] | None = None,
    trust_remote_code: bool = False,
    image_processor: BaseImageProcessor | None = None,
    **hub_arguments: Any,
) -> tuple[ProbeConfig, BaseImageProcessor | None]:
    """Everything about a probe but its head and its weights; nothing large is read.

    Args:
        source: Hub id, local folder or `embedded:<name>` of the backbone; or a backbone of one's own.
        labels: Names of the classes, or the label table that `attentive_probes.data.labels.make_table` makes.
        num_labels: Number of classes or targets C, when they have no names.
        problem_type: `single_label_classification` (default), `multi_label_classification` or `regression`.
        revision: Branch, tag or commit of a Hub backbone; the commit is stored.
        image_size: Height and width in pixels; by default what the image processor produces.
        trust_remote_code: Whether code from the backbone's repository may run.
        image_processor: Another image processor than the one that comes with the backbone.
        **hub_arguments: `token`, `cache_dir`, `local_files_only`, `force_download`.

    Returns:
        The configuration without a head, and an image processor that gives images of this size (`None` if the backbone
        comes without one).

    Raises:
        ValueError: If the backbone cannot be found or read, or the labels are missing or contradict each other.
    """
    table = _label_table(labels, num_labels)
    find_problem(problem_type)
    if isinstance(source, CustomBackbone):
        geometry, processor, num_channels = source.geometry, image_processor, getattr(source.model, "num_channels", 3)
        if revision or image_size not in (None, geometry.image_size):
            raise ValueError("A backbone of one's own has no revision, and its class says the image_size.")
        backbone: dict[str, Any] = {"backbone_class": class_name(source.model)}
        backbone["backbone_fingerprint"] = source.fingerprint()
    else:
        commit = resolve_revision(source, revision, **hub_arguments)
        backbone_config = load_backbone_config(source, commit, trust_remote_code, **hub_arguments)
        processor = image_processor or processor_of(source, commit, backbone_config, **hub_arguments)
        geometry = find_geometry(backbone_config, image_size or image_size_of(backbone_config, processor))
        num_channels = getattr(backbone_config, "num_channels", 3)
        backbone = {"backbone_name_or_path": portable_name(source), "backbone_revision": commit}
        backbone["backbone_config"] = _portable_config(backbone_config)
    if processor is not None:
        processor = fit_processor(processor, geometry.image_size, num_channels)
    config = ProbeConfig(
        **backbone,
        **geometry.to_dict(),
        **table.to_config(),
        problem_type=find_problem(problem_type).name,
    )
    return config, processor


def describe_backbone(source: str, **options: Any) -> tuple[ProbeConfig, BaseImageProcessor | None]:
    """What a backbone offers to heads: a probe's configuration that says nothing of labels, and the image processor.

    Args:
        source: Hub id, local folder or `embedded:<name>`.
        **options: `revision`, `image_size` and the like, as of `describe_probe`.

    Raises:
        ValueError: If the backbone cannot be found or read.
    """
    return describe_probe(source, num_labels=1, problem_type="regression", **options)


def loading_of(source: str | CustomBackbone, options: dict[str, Any], *others: str) -> dict[str, Any]:
    """How `from_backbone` loads the weights; `options` keeps what `describe_probe` takes.

    Args:
        source: The backbone.
        options: Its keyword arguments.
        *others: Names of what else it takes.

    Raises:
        TypeError: If an option is unknown; the text names the known ones.
        ValueError: If `dtype` is not a floating-point type, or a custom module is given loading options: it is loaded
            already.
    """
    placement = take_placement(options)
    given = sorted(name for name, value in placement.items() if value is not None)
    if isinstance(source, CustomBackbone) and given:
        raise ValueError(f"A backbone of one's own is loaded already; leave {', '.join(given)} out.")
    known = {*signature(describe_probe).parameters, *HUB} - {"source", "hub_arguments"}
    refuse_rest(options.keys() - known, "from_backbone", {*known, *PLACEMENT, *others})
    return {**placement, **{name: options[name] for name in HUB if name in options}}


def _label_table(labels: Sequence[str] | LabelTable | None, num_labels: int | None) -> LabelTable:
    if isinstance(labels, LabelTable):
        return labels
    if labels is None and num_labels is None:
        raise ValueError("Pass `labels`, the names of the classes, or `num_labels`.")
    if labels is not None and num_labels not in (None, len(labels)):
        raise ValueError(f"num_labels={num_labels} contradicts the {len(labels)} names in `labels`.")
    return LabelTable(tuple(labels)) if labels is not None else LabelTable.numbered(cast(int, num_labels))


def set_head(config: ProbeConfig, head: HeadConfig) -> None:
    """Store a head in a probe's configuration, after building it without memory to see that it fits.

    Raises:
        ValueError: If it does not fit the backbone.
    """
    with torch.device("meta"):
        build_head(config, head)
    store_head(config, head)


def store_head(config: ProbeConfig, head: HeadConfig) -> None:
    """Store a head that fits in a probe's configuration, with the package that its pooling needs."""
    config.head, config.pooling_package = head.to_dict(), package_of(head.pooling)


def require_pooling(config: ProbeConfig) -> None:
    """Check that the pooling of a stored probe is known here.

    Raises:
        ValueError: If it is not; the text names the package that brings it.
    """
    name = config.head_config.pooling
    if config.pooling_package is not None and name not in known_poolings():
        raise ValueError(
            f"The probe needs the pooling {name!r} of the package {config.pooling_package!r}, which is not known here; "
            "install that package, or import the module that calls register_pooling."
        )


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


def processor_of(
    name: str, commit: str | None, backbone_config: PreTrainedConfig, **hub_arguments: Any
) -> BaseImageProcessor | None:
    """The image processor that comes with a backbone; `None` for one without."""
    try:
        processor = load_image_processor(name, revision=commit, **hub_arguments)
    except ValueError:
        return None  # a bare backbone; sizes come from its configuration
    return timm_processor(backbone_config) if is_timm_processor(processor) else processor


def _portable_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A copy (the live object changes when a model is built from it) without the traces of where it was read."""
    return {key: value for key, value in config.to_dict().items() if key not in ("_name_or_path", "architectures")}
