"""Where a backbone is read, and how: hooks on its trunk and norms, which are found by structure.

| tap | state |
|---|---|
| `last` | the model's `last_hidden_state` |
| `prenorm` | the last block's output, before the final norm |
| `final` | the final norm of the last block's output, also where `last_hidden_state` goes without it (CLIP) |
| `block:i` | the output of block i, from 0; negative numbers count from the end |
| `normed:i` | the final norm of the output of block i, as DINOv2's evaluation reads its last blocks |
| `premlp:i` | the normed residual stream of block i between attention and MLP |
| `attn:i` | what the attention of block i adds, before any scale and the residual |
| `ffn:i` | the activation inside the MLP of block i, as wide as that |
| `stage:i` | hierarchical backbones: the last state at the i-th resolution |
| `projected` | towers with a projection (CLIP): `final`, projected token by token into the joint space |
| `all` | ALF's set: `premlp:i` of every block but the first, then `final`; or every stage |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attentive_probes.backbones.geometry import BLOCK, LAST, NORMED, PROJECTED, STAGE
from attentive_probes.backbones.inputs import format_of
from attentive_probes.backbones.trunk import attention_of, blocks_of, down_map_of, state_of

FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "rms_norm")
PRE_MLP_NORMS = ("layernorm_after", "norm2", "layer_norm2", "rms_norm2", "ffn_norm")


# Of the call that is under way in this thread: module -> what waits for its inputs and output.
LISTENERS: ContextVar[Mapping[nn.Module, Sequence[Callable[[Any, Any], None]]]] = ContextVar("listeners", default={})  # noqa: B039


class TapPoint(NamedTuple):
    """Where a tap hooks in: a module, what its output then passes through, and the number of the stage if it is one.

    With `reads_input` it is the first input of the module that is read.
    """

    module: nn.Module
    steps: tuple[nn.Module, ...] = ()
    stage: int | None = None
    reads_input: bool = False


# Tap inside a block -> its point there.
INNER: Mapping[str, Callable[[nn.Module], TapPoint]] = {
    "attn": lambda block: TapPoint(attention_of(block)),
    "ffn": lambda block: TapPoint(down_map_of(block), reads_input=True),
}


def find_point(model: PreTrainedModel, tap: str, stages: Sequence[nn.Module] = ()) -> TapPoint:
    """Find the point of a tap other than `last`; `stages` are the modules behind `stage:i`.

    Raises:
        ValueError: If the backbone has no module that the tap needs.
    """
    name, _, number = tap.partition(":")
    if name == STAGE:
        return TapPoint(stages[int(number)], stage=int(number) % len(stages))
    blocks = blocks_of(model)
    if number:
        block = blocks[int(number)]
        if name in INNER:
            return INNER[name](block)
        if name == NORMED:
            norm = _final_norm(model)
            return TapPoint(block, () if norm is None else (norm,))
        return TapPoint(block if name == BLOCK else _child(block, PRE_MLP_NORMS, f"tap {tap!r}"))
    norm = _final_norm(model) if tap in ("final", PROJECTED) else None
    projection = _projection(model) if tap == PROJECTED else None
    return TapPoint(blocks[-1], tuple(step for step in (norm, projection) if step is not None))


def read_taps(
    model: PreTrainedModel,
    pixels: Tensor,
    points: Mapping[str, TapPoint | None],
    receive: Callable[[str, Tensor], None],
) -> None:
    """Run the backbone once and hand over the state at each tap as soon as it is there; nothing is kept here.

    Args:
        model: The backbone.
        pixels: `(B, channels, H, W)`.
        points: Tap -> its point; `None` for `last`.
        receive: Called with each tap and its state, as `TokenLayout.split` takes it.
    """
    format_ = format_of(model.config)

    def pass_on(tap: str, point: TapPoint) -> Callable[..., None]:
        def hook(inputs: Any, output: Any) -> None:
            state = state_of(inputs if point.reads_input else output)
            assert state is not None
            for step in point.steps:
                state = step(state)
            receive(tap, format_.states(model, state, pixels.shape[0], point.stage))

        return hook

    listeners: dict[nn.Module, list[Callable[[Any, Any], None]]] = {}
    for tap, point in points.items():
        if point is not None:
            listeners.setdefault(point.module, []).append(pass_on(tap, point))
            _open(point.module)
    token = LISTENERS.set(listeners)
    try:
        last = format_.run(model, pixels)
    finally:
        LISTENERS.reset(token)
    if LAST in points:
        receive(LAST, format_.states(model, last, pixels.shape[0], None))


def _open(module: nn.Module) -> None:
    """Let a module tell whoever listens; once, so that compiled code never sees another hook."""
    if _tell not in module._forward_hooks.values():  # also of a copy
        module.register_forward_hook(_tell)


@torch.compiler.disable
def _tell(module: nn.Module, inputs: Any, output: Any) -> None:
    for listener in LISTENERS.get().get(module, ()):
        listener(inputs, output)


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
