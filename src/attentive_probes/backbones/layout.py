"""Which token is which: found once, by a dry run without weights, for any vision backbone."""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from attentive_probes.backbones.geometry import BLOCK, LAST, PROJECTED, STAGE, Geometry
from attentive_probes.backbones.inputs import check_readable, format_of
from attentive_probes.backbones.load import build_model, has_projection, vision_model_class
from attentive_probes.backbones.taps import INNER, read_taps
from attentive_probes.backbones.trunk import blocks_of, record_trunk
from attentive_probes.tokens import TokenLayout

Size = tuple[int, int]
Record = list[tuple[nn.Module, Tensor]]


def find_geometry(config: PreTrainedConfig, image_size: Size) -> Geometry:
    """Run the backbone of `config` once without weights, one block of it where all are equal, and read the shapes.

    The structural rules: a backbone whose blocks are equal is flat, any other has stages. The last rows x columns
    tokens are patches, the first token before them is the class token, any further ones count as registers (DINOv2's
    registers, DeiT's distillation token). The cells of a feature map are patches.

    Args:
        config: Configuration of a vision backbone.
        image_size: Height and width of the input in pixels.

    Raises:
        ValueError: If the backbone yields no image tokens, or cannot take images of this size.
    """
    check_readable(config)
    try:
        with torch.device("meta"):
            depth = len(blocks_of(build_model(deepcopy(config))))
        model, last, record = _dry_run(config, image_size, is_flat=depth > 0)
        layouts = _flat(model, last, record, image_size) if depth else _hierarchical(last, record, image_size)
    except Exception as error:  # whatever a family raises on input that it cannot take
        raise ValueError(_refusal(config, image_size, str(error).partition("\n")[0])) from error
    if not layouts:
        raise ValueError(_refusal(config, image_size, f"its output of shape {tuple(last.shape)} is no grid of patches"))
    if has_projection(config):
        tokens = layouts[LAST]
        layouts[PROJECTED] = TokenLayout(config.projection_dim, tokens.num_cls, tokens.num_registers, tokens.grid)
    return Geometry(layouts, depth, image_size)


@torch.no_grad()
def find_stages(model: PreTrainedModel, image_size: Size) -> list[tuple[nn.Module, TokenLayout]]:
    """The stages of a hierarchical backbone: the last module of its trunk at each resolution, and its layout."""
    record = _trace(model, image_size)[1]
    return _stages(record, image_size)


def _flat(model: PreTrainedModel, last: Tensor, record: Record, image_size: Size) -> dict[str, TokenLayout]:
    first = blocks_of(model)[0]
    block = next(state for module, state in record if module is first)
    block = format_of(model.config).states(model, block, 1, None)
    of_last, of_block = _flat_layout(model, last, image_size), _flat_layout(model, block, image_size)
    if of_last is None or of_block is None:
        return {}
    layouts = {LAST: of_last} if of_block == of_last else {LAST: of_last, BLOCK: of_block}
    return {**layouts, **_inner_layouts(model, of_block, image_size)}


def _inner_layouts(model: PreTrainedModel, of_block: TokenLayout, image_size: Size) -> dict[str, TokenLayout]:
    """Layouts of the taps inside the first block that give the tokens of a block, of whatever width."""
    block = blocks_of(model)[0]
    found: dict[str, Tensor] = {}
    for tap, point_of in INNER.items():
        with suppress(ValueError, NotImplementedError):  # no such part, or a form that cannot be read
            read_taps(model, _blank(model, image_size), {tap: point_of(block)}, found.__setitem__)
    layouts = {tap: _flat_layout(model, state, image_size) for tap, state in found.items() if state.ndim == 3}
    return {tap: layout for tap, layout in layouts.items() if layout == replace(of_block, width=found[tap].shape[2])}


def _flat_layout(model: PreTrainedModel, state: Tensor, image_size: Size) -> TokenLayout | None:
    if state.ndim == 4:
        return _map_layout(state, image_size)
    patch = _patch_size(model)
    if state.ndim != 3 or patch is None:
        return None
    grid = (image_size[0] // patch[0], image_size[1] // patch[1])
    num_suffix = getattr(model.config, "num_detection_tokens", 0)  # YOLOS
    num_prefix = state.shape[1] - math.prod(grid) - num_suffix
    if num_prefix < 0 or 0 in grid:
        return None
    timm_model = getattr(model, "timm_model", None)
    has_cls = num_prefix > 0 and getattr(timm_model, "cls_token", True) is not None
    return TokenLayout(state.shape[2], int(has_cls), num_prefix - int(has_cls), grid)


def _hierarchical(last: Tensor, record: Record, image_size: Size) -> dict[str, TokenLayout]:
    stages = [layout for _, layout in _stages(record, image_size)]
    layout = _any_layout(last, image_size)
    if not stages or layout is None or (last.ndim == 3 and layout.grid != stages[-1].grid):
        return {}
    return {LAST: layout, **{f"{STAGE}:{i}": stage for i, stage in enumerate(stages)}}


def _stages(record: Record, image_size: Size) -> list[tuple[nn.Module, TokenLayout]]:
    stages: dict[tuple[int, int], tuple[nn.Module, TokenLayout]] = {}
    for module, state in record:
        layout = _any_layout(state, image_size)
        if layout is not None:
            stages[layout.grid] = (module, layout)
    return sorted(stages.values(), key=lambda stage: -stage[1].num_patches)


def _any_layout(state: Tensor, image_size: Size) -> TokenLayout | None:
    if state.ndim == 4 and len(state) == 1:
        return _map_layout(state, image_size)
    if state.ndim == 3 and len(state) == 1:
        for num_prefix in (0, 1):
            if grid := _grid(state.shape[1] - num_prefix, image_size):
                return TokenLayout(state.shape[2], num_prefix, 0, grid)
    return None


def _map_layout(state: Tensor, image_size: Size) -> TokenLayout | None:
    """Layout of a map: of its two possible readings, the one whose grid has the shape of the image."""
    _, a, b, c = state.shape
    aspect = math.log(image_size[0] / image_size[1])
    is_channels_first = abs(math.log(b / c) - aspect) <= abs(math.log(a / b) - aspect)
    width, grid = (a, (b, c)) if is_channels_first else (c, (a, b))
    return TokenLayout(width, 0, 0, grid) if _grid(math.prod(grid), image_size) == grid else None


def _grid(num_cells: int, image_size: Size) -> tuple[int, int] | None:
    """The grid of `num_cells` cells that some stride lays over an image."""
    height, width = image_size
    for stride in range(1, max(image_size) + 1):
        for grid in ((height // stride, width // stride), (math.ceil(height / stride), math.ceil(width / stride))):
            if math.prod(grid) == num_cells > 0:
                return grid
    return None


def _dry_run(config: PreTrainedConfig, image_size: Size, is_flat: bool) -> tuple[PreTrainedModel, Tensor, Record]:
    # On real memory: on the meta device, families that cache their position tables by size (BEiT) would keep a table
    # without values, and the loaded backbone would use it.
    if is_flat and hasattr(config, "num_hidden_layers"):
        shallow = deepcopy(config)
        shallow.num_hidden_layers = 1
        try:
            return _build_and_trace(shallow, image_size)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
            pass  # a family that cannot be that shallow
    return _build_and_trace(deepcopy(config), image_size)


def _build_and_trace(config: PreTrainedConfig, image_size: Size) -> tuple[PreTrainedModel, Tensor, Record]:
    with no_init_weights():
        model = build_model(config).eval()
    return model, *_trace(model, image_size)


@torch.no_grad()
def _trace(model: PreTrainedModel, image_size: Size) -> tuple[Tensor, Record]:
    """Last state of one image of zeros, and the states of the trunk in order of execution."""
    format_ = format_of(model.config)
    with ExitStack() as hooks:
        record = record_trunk(model, hooks)
        last = format_.run(model, _blank(model, image_size))
    return format_.states(model, last, 1, None), record


def _blank(model: PreTrainedModel, image_size: Size) -> Tensor:
    """One image of zeros."""
    return next(model.parameters()).new_zeros(1, getattr(model.config, "num_channels", 3), *image_size)


def _patch_size(model: PreTrainedModel) -> Size | None:
    patch = getattr(model.config, "patch_size", None)
    if patch is None and hasattr(model, "timm_model"):
        patch = model.timm_model.patch_embed.patch_size
    return patch if patch is None else (patch, patch) if isinstance(patch, int) else (patch[0], patch[1])


def _refusal(config: PreTrainedConfig, image_size: Size, reason: str) -> str:
    native = getattr(config, "image_size", None)
    way_out = (
        f"try its own size, {native}"
        if native and native not in (image_size, image_size[0])
        else ("use a backbone that `attentive-probes list backbones` names")
    )
    return f"{vision_model_class(config).__name__} cannot read images of {image_size} pixels ({reason}); {way_out}."
