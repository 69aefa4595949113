"""What programs that know only transformers call on a probe: it works as they expect, or says what to do instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from attentive_probes.backbones import Backbone

BACKBONE = "backbone."
USE_LORA = (
    "A probe has its adapter on the backbone alone, and saves it with the head: pass lora=LoraConfig(...) to "
    "from_backbone, or lora= to from_pretrained of a probe that has none."
)


class ForeignMethods:
    """Methods of `PreTrainedModel` and `nn.Module` that callers such as transformers' `Trainer` rely on."""

    backbone: Backbone
    _auto_class: ClassVar[str | None] = None

    @property
    def _keys_to_ignore_on_save(self) -> set[str]:
        """Names of the tensors that saving leaves out: whoever loads a checkpoint does not miss them."""
        saved = set(self._adapter_names())
        return {name for name in self.state_dict() if name.startswith(BACKBONE) and name not in saved}  # type: ignore[attr-defined]

    @_keys_to_ignore_on_save.setter
    def _keys_to_ignore_on_save(self, keys: Iterable[str]) -> None:
        """Nothing: the parent collects there what its parts would leave out."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Load tensors by name; what is not strict may leave out the backbone, but not its adapter.

        Raises:
            ValueError: If the probe has an adapter, and the tensors are those of a head alone.
        """
        names = self._adapter_names()
        if missing := [name for name in names if name not in state_dict]:
            raise ValueError(
                f"The checkpoint lacks {len(missing)} of {len(names)} tensors of the adapter, such as {missing[0]!r}: "
                "the head would be trained and the adapter fresh. Load it with from_pretrained."
            )
        return nn.Module.load_state_dict(self, state_dict, strict=strict, assign=assign)  # type: ignore[arg-type]

    def _adapter_names(self) -> list[str]:
        adapter = getattr(self.backbone, "adapter", None)  # while a probe is loaded, there is no backbone yet
        return [] if adapter is None else [f"{BACKBONE}{name}" for name in adapter.parameters()]

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding of the backbone."""
        return self.backbone.model.get_input_embeddings()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Each layer of a head knows its own initial distribution; the backbone initializes itself.
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    @classmethod
    def register_for_auto_class(cls, *args: Any, **kwargs: Any) -> None:
        """Nothing: a probe saves its code by itself (`add_remote_code`), in one file."""

    def add_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: an adapter is given when a probe is made.

        Raises:
            ValueError: Always.
        """
        raise ValueError(USE_LORA)

    def load_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: an adapter is given when a probe is made.

        Raises:
            ValueError: Always.
        """
        raise ValueError(USE_LORA)
