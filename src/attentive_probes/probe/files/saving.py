"""A probe is saved whole, or not at all: what was learned, its adapter, its backbone where asked for, further files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone, VisionBackbone
from attentive_probes.files.fingerprint import tensors_checksum
from attentive_probes.files.writing import write_whole
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.files.code import AUTO_MAP, CODE_FILE, remote_code
from attentive_probes.probe.files.read_parts import ADAPTER_FOLDER, BACKBONE_FOLDER
from attentive_probes.probe.files.tensors import check_shapes, check_written, plain_names, plain_state
from attentive_probes.probe.making.describe import build_head, geometry_of
from attentive_probes.probe.making.transformers_habits import BACKBONE

logger = logging.getLogger(__name__)
HEAD = "head."
EXTRA_FILE = re.compile(r"README\.md|results\.json|recipe\.yaml|attention\.png|\.eval_results/attentive-probes\.yaml")
TENSORS = r"model[\w-]*(\.[\w-]+)?\.safetensors(\.index(\.[\w-]+)?\.json)?"  # one file, shards, or a variant
OWN_FILE = re.compile(
    rf"{EXTRA_FILE.pattern}|config\.json|preprocessor_config\.json|{re.escape(CODE_FILE)}|{TENSORS}|"
    rf"{ADAPTER_FOLDER}/(adapter_config\.json|README\.md|adapter_{TENSORS})|"
    rf"{BACKBONE_FOLDER}/(config\.json|generation_config\.json|{TENSORS})"
)
CHANGED = (
    "The weights of the backbone are no longer those that the probe was made with, and the probe only names its "
    "backbone. Restore them, or set config.self_contained = True to save them with it; to train them, use lora=."
)


class SavedProbe(Protocol):
    """What saving needs to know of a probe."""

    config: ProbeConfig
    backbone: Backbone
    image_processor: BaseImageProcessor | None
    files: Mapping[str, str | bytes]

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by their names."""


def save_probe(
    probe: SavedProbe,
    folder: Path,
    write: Callable[..., Any],
    state_dict: Mapping[str, Tensor] | None = None,
    is_main_process: bool = True,
    **options: Any,
) -> None:
    """Save a probe, then verify that the saved files can be loaded.

    Args:
        probe: The probe.
        folder: Where to.
        write: Writes `config.json` and the tensors that it is given as `state_dict`; every process calls it.
        state_dict: Tensors to save instead of the current ones; those of the frozen backbone are left out.
        is_main_process: Whether this process writes.
        **options: `max_shard_size`, of a backbone that is saved with it.

    Raises:
        ValueError: If a backbone of one's own is to be saved with it, weights have changed that are not saved, or what
            was written lacks a tensor.
    """
    config, backbone, adapter = probe.config, probe.backbone, probe.backbone.adapter
    with ExitStack() as stack:
        if adapter is not None:
            stack.enter_context(adapter.unmerged())
            stack.enter_context(adapter.beside_changed_weights(config.self_contained))
        config.lora = False if adapter is None else adapter.describe()
        _check_backbone(config, backbone)
        learned = learned_tensors(probe, state_dict)
        expected = _head_tensors(config) | {key: t for key, t in learned.items() if key.startswith(BACKBONE)}
        check_shapes({key: tuple(tensor.shape) for key, tensor in learned.items()}, expected, "The probe")
        if getattr(config, "auto_map", None):
            config.auto_map = dict(AUTO_MAP)
        config.tensors_checksum = tensors_checksum(learned)
        config.adapter_checksum = None if adapter is None else tensors_checksum(adapter.stored_tensors())
        write(state_dict=dict(learned))
        if is_main_process:
            check_written(folder, "model", expected)
            _save_beside(probe, folder, **options)


def is_first_process() -> bool:
    """Whether this process is the one that writes, of several or alone."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0


def learned_tensors(probe: SavedProbe, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of head and adapter, by the names that they have in the state of a probe.

    Raises:
        ValueError: If given tensors lack those of the adapter.
    """
    state = plain_names(probe.state_dict() if state_dict is None else state_dict)
    adapter = probe.backbone.adapter
    names = [] if adapter is None else [f"{BACKBONE}{name}" for name in plain_names(adapter.parameters())]
    if missing := [name for name in names if name not in state]:
        raise ValueError(
            f"The tensors to save lack {len(missing)} of the adapter's {len(names)}, such as {missing[0]!r}."
        )
    return {key: tensor for key, tensor in state.items() if key.startswith(HEAD) or key in set(names)}


def _head_tensors(config: ProbeConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return {f"{HEAD}{key}": tensor for key, tensor in build_head(config, config.head_config).state_dict().items()}


def _check_backbone(config: ProbeConfig, backbone: Backbone) -> None:
    """Note the weights that are saved with a probe; else check that they are the ones it was made with.

    Raises:
        ValueError: If they are not, or a module of one's own is to be saved.
    """
    adapter = backbone.adapter
    if config.self_contained:
        if config.backbone_class is not None:
            raise ValueError("A backbone of one's own is not saved with a probe; set config.self_contained to False.")
        if backbone.is_quantized:
            raise ValueError(
                "Quantized weights are not saved with a probe; load it without quantization_config first, or set "
                "config.self_contained to False."
            )
        config.backbone_fingerprint = backbone.fingerprint()
        return
    if adapter is not None:
        if not adapter.is_repeatable:
            raise ValueError(
                f"{adapter.config.init_lora_weights!r} changes the weights of the backbone at random, and could not do "
                "so again on loading; set config.self_contained = True to save them with the probe."
            )
        own = adapter.parameters()
        if any(parameter.requires_grad and name not in own for name, parameter in backbone.named_parameters()):
            raise ValueError(CHANGED)
        return
    found, stored = backbone.fingerprint(), config.backbone_fingerprint
    if found is None or stored is None or found.partition(":")[0] != stored.partition(":")[0]:
        return  # not comparable
    if not backbone.has_fingerprint(stored):
        raise ValueError(CHANGED)


def _save_beside(probe: SavedProbe, folder: Path, **options: Any) -> None:
    """Write the image processor, the adapter, the backbone of a self-contained probe, its code, and further files."""
    config, backbone, adapter = probe.config, probe.backbone, probe.backbone.adapter
    if probe.image_processor is not None:
        probe.image_processor.save_pretrained(folder)
    if adapter is not None:
        adapter.save(folder / ADAPTER_FOLDER, config.backbone_name_or_path, config.backbone_revision)
    if config.self_contained:
        _save_backbone(config, backbone, folder / BACKBONE_FOLDER, **options)
    if getattr(config, "auto_map", None):
        write_files({CODE_FILE: remote_code()}, folder)
    write_files(probe.files, folder)


def _save_backbone(config: ProbeConfig, backbone: Backbone, folder: Path, **options: Any) -> None:
    """Write a backbone, and read it again.

    Raises:
        ValueError: If it cannot be read, or has other weights then.
    """
    state = plain_state(backbone.model) if backbone.adapter is None else backbone.adapter.base_tensors()
    backbone.model.save_pretrained(folder, state_dict=state, **options)
    if config.backbone_fingerprint is None:
        return
    taps = config.head_config.reading.taps
    found = VisionBackbone.from_pretrained(
        str(folder), config.backbone_config, geometry_of(config), taps=taps, dtype=backbone.dtype
    )
    if not found.has_fingerprint(config.backbone_fingerprint):
        raise ValueError(f"The backbone that was saved in {str(folder)!r} has other weights when it is loaded again.")


def write_files(files: Mapping[str, str | bytes], folder: str | os.PathLike) -> None:
    """Write files, path inside the folder -> content, each in one step, and make the folders they need."""
    for name, content in files.items():
        write_whole(Path(folder) / name, content, durable=False)


def own_files(folder: str | os.PathLike) -> list[str]:
    """Paths in the folder of a probe that are ours, tensors, card, results and picture; of others, a warning tells.

    Raises:
        ValueError: If one is a link, which could lead anywhere.
    """
    root = Path(folder)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file())
    own = [name for name in names if OWN_FILE.fullmatch(name)]
    for name in own:
        if (root / name).resolve() != root.resolve() / name:
            raise ValueError(f"{root / name} is a link, which could lead anywhere; put the file itself there.")
    if others := [name for name in names if name not in own]:
        logger.warning(
            "Left out, as not written by this package: %s. Add them with huggingface_hub.upload_file.",
            ", ".join(others[:10]),
        )
    return own


def extra_files(folder: str | os.PathLike) -> dict[str, str | bytes]:
    """Path -> content of what lies in the folder of a probe beside what saving it writes: card, results, picture.

    Raises:
        ValueError: As `own_files`.
    """
    return {name: (Path(folder) / name).read_bytes() for name in own_files(folder) if EXTRA_FILE.fullmatch(name)}
