"""The trunk of a backbone: its equal blocks, or its stages, found by structure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

# How transformers and timm name the lists that a trunk runs through.
TRUNK_LIST = re.compile(r"(layers?|blocks?|stages?|network)\d*")
MAX_NESTING = 1  # blocks of stages, but not the parts of a block


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a flat backbone, in order: a list of modules of equal widths. Empty for a hierarchical one."""
    depth = getattr(model.config, "num_hidden_layers", None)
    for name, module in _trunk_lists(model):
        is_the_trunk = len(module) == depth if depth is not None else name.endswith("blocks") and not _is_numbered(name)
        if is_the_trunk and len({_widths(block) for block in module}) == 1:
            return list(module)
    return []


def trunk_prefixes(model: nn.Module) -> list[str]:
    """Names of the lists that the trunk runs through, the outermost only: `layers`, or `encoder.stages`."""
    names = [name for name, _ in _trunk_lists(model)]
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def record_trunk(model: PreTrainedModel, stack: ExitStack) -> list[tuple[nn.Module, Tensor]]:
    """Hook the trunk; the returned list fills with modules and the states they give, in order of execution."""
    record: list[tuple[nn.Module, Tensor]] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        state = state_of(output)
        if state is not None:
            record.append((module, state))

    for _, modules in _trunk_lists(model):
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
    return record


def attention_of(block: nn.Module) -> nn.Module:
    """The part of a block that attends and maps the result, found by its name.

    Raises:
        ValueError: If there is none.
    """
    for name, child in block.named_children():
        if "att" in name and "norm" not in name:
            return child
    raise ValueError(f"{type(block).__name__} has no attention; it has {[name for name, _ in block.named_children()]}.")


def down_map_of(block: nn.Module) -> nn.Module:
    """The map of a block whose input is the activation of its MLP: outside the attention, from the most channels.

    Raises:
        ValueError: If no map outside the attention gives fewer channels than it takes.
    """
    inside = set(attention_of(block).modules())
    linears = [m for m in block.modules() if isinstance(m, nn.Linear) and m not in inside]
    found = [linear for linear in linears if linear.in_features > linear.out_features]
    if not found:
        raise ValueError(f"{type(block).__name__} has no map from an activation that is wider than its tokens.")
    return max(found, key=lambda linear: linear.in_features)  # the first of equals: not that of an adapter on it


def state_of(output: Any) -> Tensor | None:
    """The state in what a module of the trunk returns: a tensor, or the first of a tuple."""
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) else getattr(first, "last_hidden_state", None)


def _trunk_lists(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList | nn.Sequential]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module):
            *outer, last = re.sub(r"(\.\d+)+$", "", name).split(".")
            if TRUNK_LIST.fullmatch(last) and sum(part.isdigit() for part in outer) <= MAX_NESTING:
                yield name, module


def _is_numbered(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def _widths(block: nn.Module) -> tuple[Any, ...]:
    return tuple(parameter.shape for parameter in block.parameters() if parameter.ndim == 1)
