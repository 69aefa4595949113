"""What lies beside the head of a saved probe: its adapter, its backbone where that was asked for, and further files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone, load_image_processor, register_backbone_code
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.lora import FOLDER as ADAPTER_FOLDER
from attentive_probes.probe.lora import NO_ADAPTER, add_lora, load_lora
from attentive_probes.probe.setup import require_pooling
from attentive_probes.probe.weights import fit_own_backbone, load_backbone

BACKBONE_FOLDER = "backbone"
PLACES = ("cache_dir", "force_download", "local_files_only", "token")


def read_config(
    source: ProbeConfig | str | os.PathLike, hub_arguments: dict[str, Any], trust_remote_code: bool
) -> ProbeConfig:
    """The configuration of a stored probe, as it is or by folder or Hub id, whose parts are all known here.

    Raises:
        ValueError: If the package of its pooling is missing, or the code of its backbone is not trusted.
    """
    if not isinstance(source, ProbeConfig):
        register_backbone_code(str(source), trust_remote_code, **hub_arguments)
        source = cast(ProbeConfig, ProbeConfig.from_pretrained(str(source), **hub_arguments))
    require_pooling(source)
    return source


def read_processor(probe: str, hub_arguments: dict[str, Any]) -> BaseImageProcessor | None:
    """The image processor of a stored probe; `None` for one without, whose user brings their own."""
    try:
        return load_image_processor(probe, **hub_arguments)
    except ValueError:
        return None


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
        **placement: `dtype`, `attn_implementation`, `device_map`.

    Raises:
        ValueError: If weights or adapter cannot be found, the weights are not those the probe was trained on, or the
            backbone to share has somebody else's adapter.
    """
    if lora is not None and config.lora:
        raise ValueError(f"{probe!r} has an adapter already; leave lora out to go on with it, or merge it first.")
    if isinstance(source, Backbone):
        if source.adapter is not None:
            raise ValueError("The backbone to share has an adapter, which belongs to one probe; pass a frozen one.")
        attach_adapter(config, source, probe, hub_arguments, lora)
        return source
    if isinstance(source, nn.Module):
        if lora is not None:
            raise ValueError(NO_ADAPTER)
        return fit_own_backbone(config, source)
    places = {key: value for key, value in hub_arguments.items() if key in PLACES}
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
        load_lora(backbone, probe, subfolder=_inside(hub_arguments, ADAPTER_FOLDER), **arguments)
    elif lora is not None:
        add_adapter(config, backbone, lora)


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


def prepare_saving(config: ProbeConfig, backbone: Backbone) -> None:
    """Note the weights of a backbone that will be saved with its probe, before anything is written.

    Raises:
        ValueError: If it is a module of one's own.
    """
    if config.self_contained:
        if config.backbone_class is not None:
            raise ValueError("A backbone of one's own is not saved with a probe; set config.self_contained to False.")
        config.backbone_fingerprint = backbone.fingerprint()


def save_beside(
    config: ProbeConfig, backbone: Backbone, files: Mapping[str, str | bytes], folder: str | os.PathLike
) -> None:
    """Write the adapter, the backbone of a self-contained probe, and further files into the folder of a probe.

    Args:
        config: Configuration of the probe.
        backbone: Its backbone.
        files: Path inside the folder -> content.
        folder: The folder.
    """
    if backbone.adapter is not None:
        base = config.backbone_name_or_path
        backbone.adapter.save(Path(folder) / ADAPTER_FOLDER, base, config.backbone_revision)
    if config.self_contained:
        _save_backbone(backbone, Path(folder) / BACKBONE_FOLDER)
    write_files(files, folder)


def write_files(files: Mapping[str, str | bytes], folder: str | os.PathLike) -> None:
    """Write files, path inside the folder -> content, and make the folders they need."""
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def extra_files(folder: str | os.PathLike) -> dict[str, str | bytes]:
    """Path -> content of what lies in the folder of a probe beside what saving it writes: card, results, pictures."""
    written = {"config.json", "model.safetensors", "preprocessor_config.json"}
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    inside = (f"{ADAPTER_FOLDER}/", f"{BACKBONE_FOLDER}/", ".cache/")
    return {
        name: path.read_bytes() for name, path in names.items() if name not in written and not name.startswith(inside)
    }


def _save_backbone(backbone: Backbone, folder: Path) -> None:
    state = backbone.model.state_dict() if backbone.adapter is None else backbone.adapter.base_tensors()
    backbone.model.save_pretrained(folder, state_dict=state)


def _inside(hub_arguments: dict[str, Any], folder: str) -> str:
    outer = hub_arguments.get("subfolder")
    return f"{outer}/{folder}" if outer else folder
