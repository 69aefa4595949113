"""What lies beside the head of a saved probe: its adapter, its backbone where that was asked for, and further files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attentive_probes.backbones import VisionBackbone
from attentive_probes.configuration_probe import ProbeConfig
from attentive_probes.lora import FOLDER as ADAPTER_FOLDER
from attentive_probes.lora import add_lora, load_lora
from attentive_probes.probe_setup import load_backbone

BACKBONE_FOLDER = "backbone"
PLACES = ("cache_dir", "force_download", "local_files_only", "token")


def read_backbone(
    config: ProbeConfig,
    probe: str,
    hub_arguments: dict[str, Any],
    *,
    name: str | None = None,
    lora: Any = None,
    **placement: Any,
) -> VisionBackbone:
    """The backbone of a stored probe with its adapter.

    Args:
        config: Configuration of the probe.
        probe: Hub id or folder of the probe.
        hub_arguments: Where and how the probe is read: `revision`, `subfolder`, `token` and the like.
        name: Another place to read the backbone's weights from.
        lora: Configuration of a fresh adapter for a probe that has none.
        **placement: `dtype`, `attn_implementation`, `device_map`.

    Raises:
        ValueError: If weights or adapter cannot be found, or the weights are not those the probe was trained on.
    """
    places = {key: value for key, value in hub_arguments.items() if key in PLACES}
    if config.self_contained and name is None:
        places |= {"subfolder": _inside(hub_arguments, BACKBONE_FOLDER), "revision": hub_arguments.get("revision")}
        name = probe
    backbone = load_backbone(config, [config.head_config], name=name, **places, **placement)
    attach_adapter(config, backbone, probe, hub_arguments, lora)
    return backbone


def attach_adapter(
    config: ProbeConfig, backbone: VisionBackbone, probe: str, hub_arguments: dict[str, Any], lora: Any = None
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


def add_adapter(config: ProbeConfig, backbone: VisionBackbone, lora: Any, seed: int = 0) -> None:
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


def save_beside(
    config: ProbeConfig, backbone: VisionBackbone, files: Mapping[str, str | bytes], folder: str | os.PathLike
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


def _save_backbone(backbone: VisionBackbone, folder: Path) -> None:
    state = backbone.model.state_dict() if backbone.adapter is None else backbone.adapter.base_tensors()
    backbone.model.save_pretrained(folder, state_dict=state)


def _inside(hub_arguments: dict[str, Any], folder: str) -> str:
    outer = hub_arguments.get("subfolder")
    return f"{outer}/{folder}" if outer else folder
