"""Heads under their own names, whatever signs these have, so that a state dict knows which is which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote, unquote

import torch
from torch import nn

from attentive_probes.probe.head import ProbeHead

MARK = "@"  # before a name, which then is no word that a module has for itself


class NamedHeads(nn.ModuleDict):
    """Name -> head; `ep-lr0.01` is no name of a module, so names are written as in an address.

    Args:
        heads: Name -> head.
    """

    def __init__(self, heads: Mapping[str, ProbeHead]):
        super().__init__({_key(name): head for name, head in heads.items()})

    def by_name(self) -> dict[str, ProbeHead]:
        """Name -> head, in order."""
        return {unquote(key.removeprefix(MARK)): cast(ProbeHead, head) for key, head in self.items()}


def _key(name: str) -> str:
    return MARK + quote(name, safe=" ").replace(".", "%2E")


def optimizer_by_name(optimizer: torch.optim.Optimizer, heads: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """`head/parameter` -> what an optimizer knows of it, such as its moments."""
    return {name: dict(optimizer.state.get(parameter, {})) for name, parameter in _parameters(heads)}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, heads: Mapping[str, nn.Module], stored: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give an optimizer back what `optimizer_by_name` gave, each parameter its own; rates stay those of the optimizer.

    Raises:
        ValueError: If it is of other heads.
    """
    parameters = dict(_parameters(heads))
    if parameters.keys() != stored.keys():
        raise ValueError(
            f"The optimizer's state is of {sorted({name.partition('/')[0] for name in stored})}, the heads are "
            f"{sorted(heads)}; load it into heads of the same names."
        )
    for name, parameter in parameters.items():
        values = {key: _moved(value, parameter, key) for key, value in stored[name].items()}
        if values:
            optimizer.state[parameter] = values


def _moved(value: Any, parameter: nn.Parameter, key: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(parameter.device) if key == "step" else value.to(parameter.device, parameter.dtype)


def _parameters(heads: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for name, head in heads.items():
        for key, parameter in head.named_parameters():
            yield f"{name}/{key}", parameter
