"""The PEFT adapter of one backbone: what it trains, how it is saved, merged and left out."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attentive_probes.backbones import Backbone
from attentive_probes.machine.installation import how_to_install
from attentive_probes.probe.files.tensors import beside_adapter, check_written


class LoraAdapter:
    """The adapter of one backbone. LoRA ("Low-Rank Adaptation", arXiv 2106.09685), or another method of PEFT.

    Use `add_lora` or `load_lora` to make one. Everything else about the backbone stays frozen and in evaluation mode;
    the dropout of the adapter follows training mode.

    Args:
        backbone: The backbone, whose linear layers PEFT has replaced.
        peft_model: PEFT's handle on them.

    Attributes:
        changes_weights: Whether its initialization changed the weights beside it (PiSSA, OLoRA).
        is_repeatable: Whether initializing it again, with other random numbers, would change them in the same way.
    """

    changes_weights = False
    is_repeatable = True

    def __init__(self, backbone: Backbone, peft_model: Any):
        self._backbone, self._peft_model = backbone, peft_model
        self._names = [name for name, p in backbone.named_parameters() if p.requires_grad]
        self._method = peft_model.base_model.prefix.split("_")[0]  # `lora`, `ia3`, `vera`: so do its parts begin

    @property
    def config(self) -> Any:
        """The `peft.PeftConfig`."""
        return self._peft_model.peft_config["default"]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter that the adapter trains."""
        everything = dict(self._backbone.named_parameters())
        return {name: everything[name] for name in self._names}

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

    @contextmanager
    def beside_changed_weights(self, is_beside: bool) -> Iterator[None]:
        """While saving: mark the adapter as not re-initialising a backbone whose modified weights are saved with it."""
        before = getattr(self.config, "init_lora_weights", None)
        if is_beside and self.changes_weights:
            self.config.init_lora_weights = True
        try:
            yield
        finally:
            if before is not None:
                self.config.init_lora_weights = before

    def describe(self) -> dict[str, Any]:
        """The configuration as plain values."""
        values = self.config.to_dict()
        return json.loads(json.dumps(values, default=lambda value: sorted(value) if isinstance(value, set) else None))

    def save(self, folder: str | os.PathLike, base: str | None, revision: str | None) -> None:
        """Write the adapter as PEFT does, for a bare backbone.

        Raises:
            ValueError: If what was written lacks a tensor.
        """
        self.config.base_model_name_or_path, self.config.revision = base, revision
        self._peft_model.save_pretrained(folder, save_embedding_layers=False)
        check_written(Path(folder), "adapter_model", self.stored_tensors())
        (Path(folder) / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the probe has its own card

    def stored_tensors(self) -> dict[str, Tensor]:
        """Name -> tensor, as PEFT writes them."""
        return require_peft().get_peft_model_state_dict(self._peft_model, save_embedding_layers=False)

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

    def base_tensors(self, keep_vars: bool = False) -> dict[str, Tensor]:
        """State of the backbone's model without the adapter, which must not be merged."""
        return beside_adapter(self._backbone.model, self._method, keep_vars)

    def is_beside(self, model: nn.Module) -> bool:
        """Whether a model that has such an adapter has the same weights beside it."""
        pairs = zip(self.base_tensors().values(), beside_adapter(model, self._method).values(), strict=True)
        return all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in pairs)


def require_peft() -> Any:
    """The module `peft`.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError(f"An adapter needs PEFT: {how_to_install('lora')}.") from error
    return peft


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warning of transformers about a property that PEFT still asks for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing.", FutureWarning)
        yield
