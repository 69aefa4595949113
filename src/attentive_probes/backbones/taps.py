"""Where a backbone is read, and how: hooks on its trunk and norms, which are found by structure.

| tap | state |
|---|---|
| `last` | the model's `last_hidden_state` |
| `prenorm` | the last block's output, before the final norm |
| `final` | the final norm of the last block's output, also where `last_hidden_state` goes without it (CLIP) |
| `block:i` | the output of block i, from 0; negative numbers count from the end |
| `premlp:i` | the normed residual stream of block i between attention and MLP |
| `stage:i` | hierarchical backbones: the last state at the i-th resolution |
| `projected` | towers with a projection (CLIP): `final`, projected token by token into the joint space |
| `all` | ALF's set: `premlp:i` of every block but the first, then `final`; or every stage |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from attentive_probes.backbones.geometry import BLOCK, LAST, PROJECTED, STAGE
from attentive_probes.backbones.inputs import format_of
from attentive_probes.backbones.trunk import blocks_of, state_of

FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "rms_norm")
PRE_MLP_NORMS = ("layernorm_after", "norm2", "layer_norm2", "rms_norm2", "ffn_norm")


def read_taps(
    model: PreTrainedModel, pixels: Tensor, taps: Sequence[str], stages: Sequence[nn.Module] = ()
) -> dict[str, Tensor]:
    """Run the backbone once and return the states at the taps, as `TokenLayout.split` takes them; only those are kept.

    Args:
        model: The backbone.
        pixels: `(B, channels, H, W)`.
        taps: Taps that the backbone offers; see above.
        stages: The modules behind `stage:i`.

    Raises:
        ValueError: If the backbone has no module that a tap needs.
    """
    format_ = format_of(model.config)
    states: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for tap in taps:
            if tap != LAST:
                handle = _module_of(model, tap, stages).register_forward_hook(_keep(states, tap))
                hooks.callback(handle.remove)
        last = format_.run(model, pixels)
    if LAST in taps:
        states[LAST] = last
    for tap in states.keys() & {"final", PROJECTED}:
        norm = _final_norm(model)
        states[tap] = states[tap] if norm is None else norm(states[tap])
    if PROJECTED in states:
        states[PROJECTED] = _projection(model)(states[PROJECTED])
    return {tap: format_.states(model, states[tap], len(pixels), _stage_number(tap, stages)) for tap in taps}


def _keep(states: dict[str, Tensor], tap: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        state = state_of(output)
        assert state is not None
        states[tap] = state

    return hook


def _stage_number(tap: str, stages: Sequence[nn.Module]) -> int | None:
    name, _, number = tap.partition(":")
    return int(number) % len(stages) if name == STAGE else None


def _module_of(model: PreTrainedModel, tap: str, stages: Sequence[nn.Module]) -> nn.Module:
    if (stage := _stage_number(tap, stages)) is not None:
        return stages[stage]
    blocks = blocks_of(model)
    name, _, number = tap.partition(":")
    if not number:  # prenorm, and what is computed from it
        return blocks[-1]
    block = blocks[int(number)]
    return block if name == BLOCK else _child(block, PRE_MLP_NORMS, f"tap {tap!r}")


def _final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm that stands beside or around the blocks, not in them; `None` where a family has none (RADIO)."""
    inside = {module for block in blocks_of(model) for module in block.modules()}
    norms = {
        name: module
        for name, module in model.named_modules()
        if module not in inside and name.rpartition(".")[2] in FINAL_NORMS
    }
    return norms[min(norms, key=lambda name: name.count("."))] if norms else None  # embeddings keep theirs deeper


def _projection(model: PreTrainedModel) -> nn.Module:
    if not hasattr(model, "visual_projection"):
        raise ValueError(
            f"{type(model).__name__} was loaded without its projection; load the backbone for a head that reads "
            f"{PROJECTED!r}, or read 'final'."
        )
    return model.visual_projection


def _child(module: nn.Module, names: Sequence[str], what: str) -> nn.Module:
    children = dict(module.named_children())
    for name in names:
        if name in children:
            return children[name]
    raise ValueError(f"{type(module).__name__} has no norm for the {what}, only {list(children)}; read another tap.")
