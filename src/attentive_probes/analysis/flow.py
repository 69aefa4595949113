"""How information flows between the tokens of a backbone, block by block: the analysis of "Beyond [cls]"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import BaseImageProcessor, PreTrainedModel

from attentive_probes.analysis.measures.attention_statistics import (
    MAGNITUDES,
    STATISTICS,
    attention_statistics,
    update_magnitudes,
)
from attentive_probes.backbones import VisionBackbone
from attentive_probes.backbones.inputs import format_of
from attentive_probes.backbones.trunk import attention_of, blocks_of, state_of
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.probe.files.weights import load_backbone, random_backbone
from attentive_probes.probe.making.describe import describe_backbone
from attentive_probes.tokens import TokenLayout

Add: TypeAlias = Callable[[int, str, Tensor], None]
SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)


@dataclass
class Flow:
    """Means over images; what a backbone has no tokens for is NaN.

    Args:
        statistics: `(L, H, 10)`, the columns of `STATISTICS` for each block and attention head.
        magnitudes: `(L, 2)`, the columns of `MAGNITUDES` for each block.
        num_images: Number of images.
        num_patches: Number of patches N; a map over them that is uniform has the entropy ln N.
    """

    statistics: Tensor
    magnitudes: Tensor
    num_images: int
    num_patches: int

    def rows(self) -> Iterator[dict[str, float]]:
        """A row per block: its number, from 0, and all means over its attention heads."""
        for block, (heads, sizes) in enumerate(zip(self.statistics, self.magnitudes, strict=True)):
            names = (*STATISTICS, *MAGNITUDES)
            yield {"block": block, **dict(zip(names, [*heads.mean(0).tolist(), *sizes.tolist()], strict=True))}


@torch.no_grad()
def attention_flow(backbone: VisionBackbone, batches: Iterable[Tensor]) -> Flow:
    """Statistics of a backbone over images, block by block; memory is that of one block of one batch.

    Attention runs in its eager form meanwhile, which alone gives its weights, and as before afterwards.

    Args:
        backbone: A flat backbone, one whose blocks attend over all tokens.
        batches: Images `(B, channels, H, W)`, as the image processor gives them.

    Raises:
        ValueError: If the backbone is hierarchical, gives no attention weights, or there is no image.
    """
    name, blocks = type(backbone.model).__name__, blocks_of(backbone.model)
    if not blocks or not backbone.geometry.num_layers:
        raise ValueError(f"{name} is hierarchical or convolutional: its blocks do not attend over all patches.")
    layout = backbone.geometry.layout("block:0")
    sums: dict[tuple[int, str], Tensor] = {}
    count = 0

    def add(block: int, kind: str, values: Tensor) -> None:
        total = values.double().sum(0).cpu()
        sums[block, kind] = sums[block, kind] + total if (block, kind) in sums else total

    with eager_attention(backbone.model), ExitStack() as stack:
        weights = _Weights(lambda block, found: add(block, "statistics", attention_statistics(found, layout)))
        for number, block in enumerate(blocks):
            _listen(stack, number, block, layout, weights, add)
        stack.enter_context(weights)
        for pixels in batches:
            format_of(backbone.model.config).run(backbone.model, pixels.to(backbone.device))
            count += len(pixels)
    if count == 0:
        raise ValueError("There is no image to look at.")
    for kind in ("statistics", "magnitudes"):
        if missing := [number for number in range(len(blocks)) if (number, kind) not in sums]:
            raise ValueError(f"{name} gives no attention over pairs of its tokens in the blocks {missing[:3]}.")
    found = [torch.stack([sums[i, kind] for i in range(len(blocks))]) / count for kind in ("statistics", "magnitudes")]
    return Flow(found[0].float(), found[1].float(), count, layout.num_patches)


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """A context in which a model of transformers computes attention in the form that gives its weights.

    Raises:
        ValueError: If it has no such form.
    """
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
    except (ValueError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"{type(model).__name__} has no eager form of attention: {error}") from error
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class _Weights(TorchFunctionMode):
    """Tells of every softmax over pairs of tokens while a block runs: whatever a family makes of the weights after."""

    def __init__(self, tell: Callable[[int, Tensor], None]):
        super().__init__()
        self.tell, self.block = tell, -1

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention and self.block >= 0:  # of families that know no other form
            self.tell(self.block, _weights_of(*args, **(kwargs or {})))
        if func in SOFTMAX and self.block >= 0 and found.ndim == 4 and found.shape[-1] == found.shape[-2] > 1:
            self.tell(self.block, found)
        return found


def _weights_of(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None, **rest: Any
) -> Tensor:
    """The weights of a call of `scaled_dot_product_attention`."""
    logits = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype is torch.bool else logits + attn_mask
    return torch.Tensor.softmax(logits, -1)


def _listen(stack: ExitStack, number: int, block: nn.Module, layout: TokenLayout, weights: _Weights, add: Add) -> None:
    """Hear of a block what comes in and what its attention adds, and say when it runs."""
    residual: list[Tensor] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        residual[:] = [inputs[0] if inputs else next(iter(options.values()))]
        weights.block = number

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        weights.block = -1
        update = state_of(output)
        if update is not None and update.ndim == 3 and residual and update.shape == residual[0].shape:
            add(number, "magnitudes", update_magnitudes(update, residual[0], layout))

    stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
    stack.callback(attention_of(block).register_forward_hook(leave).remove)


def uniform_entropy(flow: Flow) -> float:
    """Entropy of attention that is spread over all patches alike, in nats."""
    return math.log(flow.num_patches)


def load_for_flow(name: str, random_weights: bool = False) -> tuple[VisionBackbone, BaseImageProcessor]:
    """A backbone by name, trained or not, and its image processor.

    Raises:
        ValueError: If it cannot be found, or comes without an image processor.
    """
    config, processor = describe_backbone(name)
    if processor is None:
        raise ValueError(f"The backbone {name!r} comes without a usable image processor.")
    backbone = random_backbone(config, []) if random_weights else load_backbone(config, [])
    return backbone, processor


def pixel_batches(
    dataset: Any, backbone: VisionBackbone, processor: BaseImageProcessor, batch_size: int, column: str = "image"
) -> Iterator[Tensor]:
    """Images of a dataset, batch by batch, as the processor gives them."""
    for first in range(0, len(dataset), batch_size):
        cells = dataset[first : first + batch_size][column]
        opened = [open_image(cell, "of the dataset", num_channels=backbone.num_channels) for cell in cells]
        yield processor(opened, return_tensors="pt")["pixel_values"]
