"""A probe is loaded: what lies in its folder is checked, one part against the other, before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from attentive_probes.backbones import Backbone
from attentive_probes.files.fingerprint import tensors_checksum
from attentive_probes.files.untrusted import untrusted
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.files.read_parts import read_backbone, read_config, read_processor
from attentive_probes.probe.making.describe import build_head
from attentive_probes.probe.making.placement import HUB, LABELS, take, take_placement


def load_probe(
    read: Callable[..., Any], name: str, *, config: Any, backbone: Any, lora: Any, **kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """A probe and what transformers says of its tensors.

    Args:
        read: Reads the head by `PreTrainedModel.from_pretrained`.
        name: Folder or Hub id.
        config: A configuration to use instead of the stored one.
        backbone: A loaded backbone to share, another place to read its weights from, or the module of one's own.
        lora: Configuration of a PEFT adapter to start.
        **kwargs: As `ProbeForImageClassification.from_pretrained` takes them.

    Raises:
        ValueError: As there.
    """
    hub = {key: kwargs[key] for key in (*HUB, "revision", "subfolder") if key in kwargs}
    placement, labels = take_placement(kwargs), take(kwargs, LABELS)
    config = read_config(config or name, hub, kwargs.get("trust_remote_code") or False, labels)
    check_head(config, name, hub, kwargs.get("ignore_mismatched_sizes", False))
    loaded = read_backbone(config, name, hub, source=backbone, lora=lora, **placement)
    kwargs |= {key: value for key, value in placement.items() if key in ("dtype", "device_map")}
    # The loaded backbone joins afterwards: loading resets buffers of whatever is in the model.
    probe, info = read(config=config, backbone=nn.Identity(), output_loading_info=True, **kwargs)
    other_sizes = {key for key, *_ in info["mismatched_keys"]}
    if missing := set(info["missing_keys"]) - other_sizes:
        raise ValueError(f"{name!r} lacks learned tensors of the probe: {sorted(missing)}.")
    is_shared = isinstance(backbone, Backbone)  # then it stays where it is
    probe.backbone, probe.head.is_trained = loaded if is_shared else loaded.to(probe.device), not other_sizes
    probe.head.to(loaded.device)
    probe.image_processor = read_processor(name, config, hub)
    return probe, info


def check_tensors(tensors: Mapping[str, Tensor], checksum: str | None, entry: str) -> None:
    """Check that tensors are those that were saved.

    Args:
        tensors: What a file holds.
        checksum: As the configuration has it; `None` checks nothing.
        entry: Where it has it.

    Raises:
        ValueError: If they are others.
    """
    if checksum is not None and tensors_checksum(tensors) != checksum:
        raise ValueError(
            f"its tensors are not those that were saved: it is damaged, or was written by other means; copy it again, "
            f"or set {entry} to null in config.json if others are meant"
        )


def is_whole(folder: Path) -> bool:
    """Whether the saved probe of a folder still holds the tensors that were saved, as far as it says which."""
    try:
        checksum = json.loads((folder / "config.json").read_text("utf-8")).get("tensors_checksum")
        path = folder / SAFE_WEIGHTS_NAME
        return checksum is None or not path.exists() or tensors_checksum(load_file(path)) == checksum
    except Exception:  # whatever a damaged file can cause
        return False


def other_causes(probe: object) -> tuple[type[Exception], ...]:
    """Errors of reading a probe that are no fault of its files: those of the way to the Hub, or of a device "meta"."""
    of_hub = () if Path(str(probe)).is_dir() else (OSError,)
    return (*of_hub, RuntimeError) if torch.get_default_device().type == "meta" else of_hub


def check_head(config: ProbeConfig, probe: str, hub_arguments: dict[str, Any], may_differ: bool) -> None:
    """Check the tensors in the file of a stored probe against its configuration, before anything is made of either.

    Args:
        config: The configuration.
        probe: Hub id or folder.
        hub_arguments: Where and how it is read.
        may_differ: Whether shapes may be others, as for new labels.

    Raises:
        ValueError: If the file is damaged, or a tensor of the head has another shape or holds no finite numbers.
    """
    path = cached_file(probe, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **hub_arguments)
    if path is None:
        return  # in shards, or under another name
    with torch.device("meta"):
        expected = build_head(config, config.head_config).state_dict()
    with untrusted(path, "the tensors of a probe"):
        stored = load_file(path)
        found = {key.removeprefix("head."): tensor for key, tensor in stored.items()}
        if found.keys() >= expected.keys():  # those that are missing are named after this check
            check_tensors(stored, config.tensors_checksum, "tensors_checksum")
        for name, tensor in expected.items():
            if name in found and not may_differ and found[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} has the shape {list(found[name].shape)}, not {list(tensor.shape)} as configured; for "
                    "other labels than those of the training, pass ignore_mismatched_sizes=True"
                )
            if name in found and found[name].is_floating_point() and not found[name].isfinite().all():
                raise ValueError(f"{name} holds numbers that are not finite")
