"""Where a backbone can be read, and how: hooks on its blocks and norms, which are found by structure.

| tap | state |
|---|---|
| `last` | the model's `last_hidden_state` |
| `prenorm` | the last block's output, before the final norm |
| `final` | the final norm of the last block's output, also where `last_hidden_state` goes without it (CLIP) |
| `block:i` | the output of block i, from 0; negative numbers count from the end |
| `premlp:i` | the normed residual stream of block i between attention and MLP |
| `all` | ALF's set: `premlp:i` of every block but the first, then `final` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from attentive_probes.naming import unknown_name

NAMED_TAPS = ("last", "prenorm", "final")
NUMBERED_TAPS = ("block", "premlp")
ALL = "all"
FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "rms_norm")
PRE_MLP_NORMS = ("layernorm_after", "norm2", "layer_norm2", "rms_norm2")


def all_taps(num_layers: int) -> tuple[str, ...]:
    """What the tap `all` stands for (arXiv 2601.09322): all blocks but the first before their MLP, the final norm."""
    return (*(f"premlp:{i}" for i in range(1, num_layers)), "final")


def check_taps(taps: Iterable[str], num_layers: int) -> None:
    """Check that every tap exists in a backbone of `num_layers` blocks.

    Raises:
        ValueError: If one does not.
    """
    for tap in taps:
        name, separator, number = tap.partition(":")
        if tap in NAMED_TAPS:
            continue
        if name not in NUMBERED_TAPS or not separator:
            raise ValueError(unknown_name("tap", tap, (*NAMED_TAPS, ALL, *(f"{n}:i" for n in NUMBERED_TAPS))))
        if not number.removeprefix("-").isdigit() or not -num_layers <= int(number) < num_layers:
            raise ValueError(
                f"The tap {tap!r} is out of range: the backbone has {num_layers} blocks, "
                f"{name}:0 to {name}:{num_layers - 1} or {name}:-{num_layers} to {name}:-1."
            )


def read_taps(model: PreTrainedModel, pixel_values: Tensor, taps: Sequence[str], **kwargs: bool) -> dict[str, Tensor]:
    """Run the backbone once and return the states `(B, prefix + N, D)` at the taps; only those are kept.

    Raises:
        ValueError: If the backbone has no module that a tap needs.
    """
    states: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for tap in taps:
            if tap != "last":
                module = _module_of(model, "prenorm" if tap == "final" else tap)
                handle = module.register_forward_hook(_keep(states, tap))
                hooks.callback(handle.remove)
        states["last"] = model(pixel_values=pixel_values, **kwargs).last_hidden_state
    if "final" in taps and (norm := _final_norm(model)) is not None:
        states["final"] = norm(states["final"])
    return {tap: states[tap] for tap in taps}


def _keep(states: dict[str, Tensor], tap: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        states[tap] = output if isinstance(output, Tensor) else output[0]

    return hook


def _module_of(model: PreTrainedModel, tap: str) -> nn.Module:
    blocks = _blocks(model)
    name, _, number = tap.partition(":")
    if name == "prenorm":
        return blocks[-1]
    block = blocks[int(number)]
    return block if name == "block" else _child(block, PRE_MLP_NORMS, f"tap {tap!r}")


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == getattr(model.config, "num_hidden_layers", None):
            return module
    raise ValueError(f"The blocks of {type(model).__name__} were not found; read it at 'last'.")


def _final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm that stands beside or around the blocks, not in them; `None` where a family has none (RADIO)."""
    inside = set(_blocks(model).modules())
    for full_name, module in model.named_modules():
        if module not in inside and full_name.rpartition(".")[2] in FINAL_NORMS:
            return module
    return None


def _child(module: nn.Module, names: Sequence[str], what: str) -> nn.Module:
    children = dict(module.named_children())
    for name in names:
        if name in children:
            return children[name]
    raise ValueError(f"{type(module).__name__} has no norm for the {what}, only {list(children)}; read another tap.")
