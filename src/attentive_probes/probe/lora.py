"""A PEFT adapter comes to a backbone: a fresh one, or one that was stored."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from attentive_probes.backbones import Backbone, VisionBackbone
from attentive_probes.backbones.base import keep_weights
from attentive_probes.backbones.trunk import trunk_prefixes
from attentive_probes.files.fingerprint import same_tensors
from attentive_probes.probe.files.tensors import plain_state
from attentive_probes.probe.making.adapter import LoraAdapter, quiet, require_peft

FOLDER = "lora"
NO_ADAPTER = "A backbone of one's own takes no adapter here; train it in its own code, or use one of transformers."
# Names of the linear layers that make queries and values, the first match of a backbone counts; then of MLPs.
TARGETS = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("qkv",),
    ("to_q", "to_v"),
    ("pwconv1", "pwconv2"),
)


def add_lora(backbone: Backbone, config: Any) -> LoraAdapter:
    """Put a fresh adapter on a backbone.

    Args:
        backbone: The backbone; its weights stay frozen.
        config: A `peft.LoraConfig`, or that of another method that applies to linear layers (DoRA, IA3, VeRA). Without
            `target_modules` the layers of queries and values in the trunk are adapted, or the MLPs of a convolutional
            one.

    Raises:
        ValueError: If PEFT is not installed, the backbone has an adapter already, or the target modules do not fit.
    """
    peft = require_peft()
    if not isinstance(backbone, VisionBackbone):
        raise ValueError(NO_ADAPTER)
    if backbone.adapter is not None:
        raise ValueError("The backbone has an adapter already; merge it with `adapter.merge_and_unload()` first.")
    config = deepcopy(config)
    before = {key: tensor.shape for key, tensor in plain_state(backbone.model).items()}
    weights, twin = backbone.fingerprint(), None
    if isinstance(getattr(config, "init_lora_weights", True), str):  # it may change them
        twin = deepcopy(backbone.model)
    if getattr(config, "target_modules", None) is None:
        config.target_modules = default_targets(backbone.model)
        if hasattr(config, "feedforward_modules") and config.feedforward_modules is None:
            config.feedforward_modules = []  # IA3: what it scales at the input, here nothing
    try:
        with quiet():
            peft_model = peft.get_peft_model(backbone.model, config)
    except ValueError as error:
        leaves = sorted(_linear_names(backbone.model))
        raise ValueError(f"The adapter does not fit the backbone, whose linear layers are {leaves}: {error}") from error
    adapter = _attach(backbone, peft_model, weights)
    is_other = {key: tensor.shape for key, tensor in adapter.base_tensors().items()} != before
    if is_other or (adapter.changes_weights and twin is None):
        raise ValueError(
            f"{type(config).__name__} changes what the backbone is made of (layers are copied, or wrapped in a way "
            "that is not known here), and could not be saved with a probe; leave that option out, or use another."
        )
    if twin is not None and adapter.changes_weights:
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(torch.initial_seed() + 1)
            peft.get_peft_model(twin, deepcopy(config))
        adapter.is_repeatable = adapter.is_beside(twin)
    return adapter


def load_lora(backbone: Backbone, source: str | os.PathLike, **hub_arguments: Any) -> LoraAdapter:
    """Put a stored adapter on a backbone, of ours or trained elsewhere with PEFT on the bare backbone.

    Args:
        backbone: The backbone.
        source: Folder or Hub id.
        **hub_arguments: `subfolder`, `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        ValueError: If PEFT is not installed, there is no such adapter, or it does not fit the backbone.
    """
    peft = require_peft()
    if not isinstance(backbone, VisionBackbone):
        raise ValueError(NO_ADAPTER)
    weights = backbone.fingerprint()
    try:
        with quiet():
            peft_model = peft.PeftModel.from_pretrained(backbone.model, source, is_trainable=True, **hub_arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"The adapter {str(source)!r} cannot be loaded on this backbone: {error}") from error
    return _attach(backbone, peft_model, weights)


def rebuild_lora(backbone: Backbone, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LoraAdapter:
    """Put an adapter on a backbone from its configuration as plain values and the tensors of its probe.

    Args:
        backbone: The backbone.
        described: What `LoraAdapter.describe` gave.
        tensors: Those of the probe, by the names that they have there.

    Raises:
        ValueError: If PEFT is not installed, or tensors are missing.
    """
    with torch.random.fork_rng():
        adapter = add_lora(backbone, require_peft().PeftConfig.from_peft_type(**described))
    for name, parameter in adapter.parameters().items():
        stored = tensors.get(f"backbone.{name}")
        if stored is None or stored.shape != parameter.shape:
            raise ValueError(f"The stored probe lacks the tensor {name!r} of its adapter.")
        parameter.data.copy_(stored)
    return adapter


def default_targets(model: nn.Module) -> str:
    """A pattern of the linear layers that make queries and values in the trunk of a backbone.

    Raises:
        ValueError: If none of the known names is there.
    """
    found = _linear_names(model)
    for names in TARGETS:
        if all(name in found for name in names):
            trunk = "|".join(re.escape(prefix) for prefix in trunk_prefixes(model))
            return rf"({trunk})\..*\.({'|'.join(names)})"
    raise ValueError(f"Name target_modules in the adapter's configuration; the backbone has {sorted(found)}.")


def _attach(backbone: Backbone, peft_model: Any, weights: str | None) -> LoraAdapter:
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # learned in float32, whatever the backbone's precision
    keep_weights(backbone)
    backbone.adapter = adapter = LoraAdapter(backbone, peft_model)
    found = backbone.fingerprint()
    is_same = found is weights is None or (found is not None and weights is not None and same_tensors(found, weights))
    adapter.changes_weights = not is_same
    backbone.train(backbone.training)
    return adapter


def _linear_names(model: nn.Module) -> Counter[str]:
    prefixes = tuple(f"{prefix}." for prefix in trunk_prefixes(model))
    return Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefixes)
    )
