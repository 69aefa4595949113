"""What lies beside the head of a saved probe is read: configuration, processor, adapter, and its backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BaseImageProcessor
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from attentive_probes.backbones import Backbone, fit_processor, load_image_processor, register_backbone_code
from attentive_probes.files.fingerprint import tensors_checksum
from attentive_probes.files.untrusted import untrusted
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.files.weights import check_weights, fit_own_backbone, load_backbone
from attentive_probes.probe.lora import FOLDER as ADAPTER_FOLDER
from attentive_probes.probe.lora import NO_ADAPTER, add_lora, load_lora, rebuild_lora
from attentive_probes.probe.making.describe import geometry_of, processor_of, require_pooling
from attentive_probes.probe.making.placement import HUB
from attentive_probes.problems import find_problem

BACKBONE_FOLDER = "backbone"
ADAPTER_FILE = "adapter_model.safetensors"


def read_config(
    source: ProbeConfig | str | os.PathLike,
    hub_arguments: dict[str, Any],
    trust_remote_code: bool,
    labels: Mapping[str, Any] | None = None,
) -> ProbeConfig:
    """The configuration of a stored probe, as it is or by folder or Hub id, whose parts are all known here.

    Args:
        source: Configuration, folder or Hub id.
        hub_arguments: Where and how it is read.
        trust_remote_code: Whether code of the backbone may run.
        labels: Other labels than the stored ones: `num_labels`, `id2label`, `label2id`, `problem_type`.

    Raises:
        ValueError: If the package of its pooling is missing, the code of its backbone is not trusted, or there is no
            such problem type.
    """
    if not isinstance(source, ProbeConfig):
        register_backbone_code(str(source), trust_remote_code, **hub_arguments)
        source = cast(ProbeConfig, ProbeConfig.from_pretrained(str(source), **hub_arguments))
    require_pooling(source)
    source = deepcopy(source)  # the caller's own may serve others
    if labels:
        find_problem(labels.get("problem_type"))
        for name, value in labels.items():
            setattr(source, name, value)
        if "id2label" in labels and "label2id" not in labels:
            source.label2id = {name: i for i, name in source.id2label.items()}
    if source.label_values is not None and (labels or len(source.label_values) != source.num_labels):
        source.label_values = None  # of other labels
    return source


def read_processor(probe: str, config: ProbeConfig, hub_arguments: dict[str, Any]) -> BaseImageProcessor | None:
    """The image processor of a stored probe, or that of its backbone; `None` if its user must bring their own."""
    try:
        return load_image_processor(probe, **hub_arguments)
    except ValueError:
        if _has(probe, "preprocessor_config.json", hub_arguments):
            raise
        name, backbone = config.backbone_name_or_path, config.backbone_config
        if name is None or backbone is None:
            return None
    places = {key: value for key, value in hub_arguments.items() if key in HUB}
    processor = processor_of(name, config.backbone_revision, backbone, **places)
    if processor is None:
        return None
    return fit_processor(processor, geometry_of(config).image_size, getattr(backbone, "num_channels", 3))


def read_backbone(
    config: ProbeConfig,
    probe: str,
    hub_arguments: dict[str, Any],
    *,
    source: nn.Module | str | None = None,
    lora: Any = None,
    **placement: Any,
) -> Backbone:
    """The backbone of a stored probe with its adapter.

    Args:
        config: Configuration of the probe.
        probe: Hub id or folder of the probe.
        hub_arguments: Where and how the probe is read: `revision`, `subfolder`, `token` and the like.
        source: A loaded backbone to share; another place to read its weights from; or the module of one's own that is
            the backbone.
        lora: Configuration of a fresh adapter for a probe that has none.
        **placement: `dtype`, `attn_implementation`, `device_map`, `quantization_config`.

    Raises:
        ValueError: If weights or adapter cannot be found, the weights are not those the probe was trained on, or the
            backbone to share has an adapter or would get one.
    """
    if lora is not None and config.lora:
        raise ValueError(f"{probe!r} has an adapter already; leave lora out to go on with it, or merge it first.")
    if isinstance(source, Backbone):
        if source.adapter is not None:
            raise ValueError("The backbone to share has an adapter, which belongs to one probe; pass a frozen one.")
        if config.lora or lora is not None:
            raise ValueError(
                "An adapter would change the backbone to share for whoever else reads it; leave backbone out, or name "
                "where its weights are."
            )
        if placement.get("dtype") not in (None, source.dtype):
            raise ValueError(f"The backbone to share is in {source.dtype}; leave dtype out, or load another one.")
        check_weights(config, source, config.backbone_name_or_path or "given")
        return source
    if isinstance(source, nn.Module):
        if lora is not None:
            raise ValueError(NO_ADAPTER)
        return fit_own_backbone(config, source)
    places = {key: value for key, value in hub_arguments.items() if key in HUB}
    if config.self_contained and source is None:
        places |= {"subfolder": _inside(hub_arguments, BACKBONE_FOLDER), "revision": hub_arguments.get("revision")}
        source = probe
    backbone = load_backbone(config, [config.head_config], name=source, **places, **placement)
    attach_adapter(config, backbone, probe, hub_arguments, lora)
    return backbone


def attach_adapter(
    config: ProbeConfig, backbone: Backbone, probe: str, hub_arguments: dict[str, Any], lora: Any = None
) -> None:
    """Put the stored adapter of a probe on its backbone, or a fresh one.

    Raises:
        ValueError: If the stored one cannot be found, or the fresh one does not fit.
    """
    if config.lora:
        arguments = {key: value for key, value in hub_arguments.items() if key != "subfolder"}
        inside = _inside(hub_arguments, ADAPTER_FOLDER)
        if isinstance(config.lora, dict) and not _has(probe, "adapter_config.json", {**arguments, "subfolder": inside}):
            rebuild_lora(backbone, config.lora, learned_of(probe, hub_arguments))  # as from a checkpoint of `Trainer`
            return
        _check_adapter(config, probe, {**arguments, "subfolder": inside})
        load_lora(backbone, probe, subfolder=inside, **arguments)
    elif lora is not None:
        add_adapter(config, backbone, lora)


def _check_adapter(config: ProbeConfig, probe: str, hub_arguments: dict[str, Any]) -> None:
    """Check that the file of a stored adapter holds what was saved."""
    path = cached_file(probe, ADAPTER_FILE, _raise_exceptions_for_missing_entries=False, **hub_arguments)
    if path is None or config.adapter_checksum is None:
        return
    with untrusted(path, "the adapter of a probe"):
        if tensors_checksum(load_file(path)) != config.adapter_checksum:
            raise ValueError(
                "its tensors are not those that were saved: it is damaged, or was trained further elsewhere; copy it "
                "again, or set adapter_checksum to null in config.json if others are meant"
            )


def add_adapter(config: ProbeConfig, backbone: Backbone, lora: Any, seed: int = 0) -> None:
    """Put a fresh adapter (a `peft.PeftConfig`), or a stored one (its folder or Hub id), on the backbone of a probe.

    Raises:
        ValueError: If it does not fit.
    """
    if isinstance(lora, str | os.PathLike):
        load_lora(backbone, lora)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            add_lora(backbone, lora)
    config.lora = True
    if not backbone.adapter.is_repeatable:
        config.self_contained = True  # nobody could make these weights again


def learned_of(probe: str, hub_arguments: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors in the file of a stored probe.

    Raises:
        ValueError: If there is no such file.
    """
    path = cached_file(probe, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **hub_arguments)
    if path is None:
        raise ValueError(f"{probe!r} has neither a folder {ADAPTER_FOLDER!r} nor a file {SAFE_WEIGHTS_NAME!r}.")
    return load_file(path)


def _has(probe: str, name: str, hub_arguments: dict[str, Any]) -> bool:
    return cached_file(probe, name, _raise_exceptions_for_missing_entries=False, **hub_arguments) is not None


def _inside(hub_arguments: dict[str, Any], folder: str) -> str:
    outer = hub_arguments.get("subfolder")
    return f"{outer}/{folder}" if outer else folder
