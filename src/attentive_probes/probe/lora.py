"""A PEFT adapter on the backbone: add, save, load, merge."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from attentive_probes.backbones import Backbone, VisionBackbone
from attentive_probes.backbones.base import keep_weights
from attentive_probes.backbones.trunk import trunk_prefixes

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


class LoraAdapter:
    """The adapter of one backbone. LoRA ("Low-Rank Adaptation", arXiv 2106.09685), or another method of PEFT.

    Use `add_lora` or `load_lora` to make one. Everything else about the backbone stays frozen and in evaluation mode;
    the dropout of the adapter follows training mode.

    Args:
        backbone: The backbone, whose linear layers PEFT has replaced.
        peft_model: PEFT's handle on them.
    """

    def __init__(self, backbone: Backbone, peft_model: Any):
        self._backbone, self._peft_model = backbone, peft_model
        self._names = [name for name, p in backbone.named_parameters() if p.requires_grad]
        self._method = (
            "." + peft_model.base_model.prefix.split("_")[0]
        )  # `.lora`, `.ia3`, `.vera`: so do its parts begin
        dropout = f"{self._method}_dropout."
        self._dropouts = [module for name, module in backbone.named_modules() if dropout in f"{name}."]

    @property
    def config(self) -> Any:
        """The `peft.PeftConfig`."""
        return self._peft_model.peft_config["default"]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter that the adapter trains."""
        everything = dict(self._backbone.named_parameters())
        return {name: everything[name] for name in self._names}

    def train(self, mode: bool) -> None:
        """Switch the adapter's own dropout on or off."""
        for dropout in self._dropouts:
            dropout.train(mode)

    def merge(self) -> None:
        """Add the adapter to the weights of the backbone, for speed; `unmerge` takes it out again."""
        self._peft_model.merge_adapter()

    def unmerge(self) -> None:
        """Undo `merge`."""
        self._peft_model.unmerge_adapter()

    def merge_and_unload(self) -> None:
        """Make the adapter a part of the weights for good: the backbone has none afterwards."""
        self._peft_model.merge_and_unload()
        self._backbone.requires_grad_(False)
        self._backbone.adapter = None

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """A context in which the backbone is the frozen one."""
        with self._peft_model.disable_adapter():
            yield

    def save(self, folder: str | os.PathLike, base: str | None, revision: str | None) -> None:
        """Write the adapter as PEFT does, for a bare backbone.

        Args:
            folder: Where to.
            base: Name of the backbone.
            revision: Its commit.
        """
        self.config.base_model_name_or_path, self.config.revision = base, revision
        self._peft_model.save_pretrained(folder, save_embedding_layers=False)
        (Path(folder) / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the probe has its own card

    @contextmanager
    def unmerged(self) -> Iterator[None]:
        """A context in which the adapter is apart from the weights, whether it was merged before or not."""
        merged = any(getattr(module, "merged", False) for module in self._backbone.modules())
        if merged:
            self.unmerge()
        try:
            yield
        finally:
            if merged:
                self.merge()

    def base_tensors(self) -> dict[str, Tensor]:
        """State of the backbone's model without the adapter, which must not be merged."""
        state = self._backbone.model.state_dict()
        own = f"{self._method}_"
        return {key.replace(".base_layer.", "."): tensor for key, tensor in state.items() if own not in key}


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
    if getattr(config, "target_modules", None) is None:
        config.target_modules = default_targets(backbone.model)
        if hasattr(config, "feedforward_modules") and config.feedforward_modules is None:
            config.feedforward_modules = []  # IA3: what it scales at the input, here nothing
    try:
        with _quiet():
            peft_model = peft.get_peft_model(backbone.model, config)
    except ValueError as error:
        leaves = sorted(_linear_names(backbone.model))
        raise ValueError(f"The adapter does not fit the backbone, whose linear layers are {leaves}: {error}") from error
    return _attach(backbone, peft_model)


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
    try:
        with _quiet():
            peft_model = peft.PeftModel.from_pretrained(backbone.model, source, is_trainable=True, **hub_arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"The adapter {str(source)!r} cannot be loaded on this backbone: {error}") from error
    return _attach(backbone, peft_model)


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


def require_peft() -> Any:
    """The module `peft`.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("An adapter needs PEFT: pip install 'attentive-probes[lora]'.") from error
    return peft


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of transformers about a property that PEFT still asks for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing.", FutureWarning)
        yield


def _attach(backbone: Backbone, peft_model: Any) -> LoraAdapter:
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # learned in float32, whatever the backbone's precision
    keep_weights(backbone)
    backbone.adapter = LoraAdapter(backbone, peft_model)
    backbone.train(backbone.training)
    return backbone.adapter


def _linear_names(model: nn.Module) -> Counter[str]:
    prefixes = tuple(f"{prefix}." for prefix in trunk_prefixes(model))
    return Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefixes)
    )
