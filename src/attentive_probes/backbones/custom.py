"""A backbone of one's own: any module that says how tokens come out of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attentive_probes.backbones.base import Backbone, keep_weights
from attentive_probes.backbones.geometry import ALL, LAST, Geometry
from attentive_probes.tokens import Layouts, TokenLayout, Tokens


@runtime_checkable
class TokenModule(Protocol):
    """What a module needs to be read as a backbone. Everything else about it is its author's business.

    Attributes:
        image_size: Height and width in pixels of the images that it reads.
        num_channels: Their channels, 3 where it does not say.
    """

    image_size: tuple[int, int]

    def tokens(self, pixel_values: Tensor) -> Tokens | Mapping[str, Tokens]:
        """Tokens of images `(B, channels, H, W)`; or tap -> tokens, of which one tap is called `last`.

        `TokenLayout(width, num_cls, num_registers, grid).split(states)` makes them of states `(B, T, D)` or of a map.
        """


class CustomBackbone(Backbone):
    """A module of one's own as a backbone, frozen; `from_backbone` and `from_pretrained` make it of the module.

    Args:
        module: An `nn.Module` that is a `TokenModule`.

    Raises:
        ValueError: If it has no such method or size, or what the method gives for an image are no tokens.
    """

    def __init__(self, module: nn.Module):
        if not isinstance(module, nn.Module) or not isinstance(module, TokenModule):
            raise ValueError(
                f"{type(module).__name__} is no backbone: give its class an attribute image_size, (height, width), and "
                "a method tokens(pixel_values) that returns attentive_probes.tokens.Tokens."
            )
        size = tuple(module.image_size)
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"image_size of {class_name(module)} is {module.image_size!r}; write (height, width).")
        super().__init__(module, Geometry({}, 0, (size[0], size[1])))
        keep_weights(module)
        self.geometry = Geometry(self._find_layouts(), 0, (size[0], size[1]))

    @property
    def num_channels(self) -> int:
        """Channels of the images that it reads: what the module says, or 3."""
        return getattr(self.model, "num_channels", 3)

    def read(self, pixel_values: Tensor, layouts: Layouts, receive: Callable[[str, Tokens], None]) -> None:
        """Run the module once and hand over the tokens of each tap.

        Raises:
            ValueError: If it gives tokens of another number or width than it did at first.
        """
        found = _by_tap(self.model.tokens(pixel_values), self.describe()["class"])
        for tap, layout in layouts.items():
            if tap not in found or found[tap].layout != layout:
                raise ValueError(
                    f"{class_name(self.model)} gives other tokens at {tap!r} than it did when it was wrapped: "
                    f"{found[tap].layout if tap in found else 'none'}, not {layout}."
                )
            receive(tap, found[tap])

    def weights(self) -> dict[str, Tensor]:
        """The state dict."""
        return self.model.state_dict(keep_vars=True)

    def describe(self) -> dict[str, Any]:
        """The name of the module's class."""
        return {"class": class_name(self.model)}

    def compile_blocks(self) -> None:
        """Compile the whole module."""
        self.model.compile()

    @torch.no_grad()
    def _find_layouts(self) -> dict[str, TokenLayout]:
        """Tap -> layout of what the module gives for two images of zeros."""
        shape = (2, self.num_channels, *self.geometry.image_size)
        name = class_name(self.model)
        try:
            found = _by_tap(self.model.tokens(torch.zeros(shape, dtype=self.dtype, device=self.device)), name)
        except ValueError:
            raise
        except Exception as error:  # whatever a custom module raises
            raise ValueError(f"{name}.tokens fails on images of the shape {shape}: {error}") from error
        for tap, tokens in found.items():
            wrong = [kind.shape for kind in tokens[:3] if kind.ndim != 3 or len(kind) != 2]
            if wrong or len({kind.shape[2] for kind in tokens[:3]}) != 1:
                raise ValueError(
                    f"{name}.tokens gives cls, registers and patches of the shapes "
                    f"{[tuple(kind.shape) for kind in tokens[:3]]} at {tap!r} for two images; each must be (2, T, D), "
                    "with T = 0 for a kind that there is not."
                )
            if tokens.patches.shape[1] != tokens.grid[0] * tokens.grid[1]:
                raise ValueError(f"{name}.tokens gives {tokens.patches.shape[1]} patches for a grid of {tokens.grid}.")
        return {tap: tokens.layout for tap, tokens in found.items()}


def class_name(module: nn.Module) -> str:
    """Where the class of a module is found."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _by_tap(found: Any, name: str) -> dict[str, Tokens]:
    by_tap = {LAST: found} if isinstance(found, Tokens) else dict(found) if isinstance(found, Mapping) else {}
    if not all(isinstance(tokens, Tokens) for tokens in by_tap.values()) or not by_tap:
        raise ValueError(f"{name}.tokens gives a {type(found).__name__}; it must give Tokens, or tap -> Tokens.")
    if LAST not in by_tap or ALL in by_tap or any(set(":@") & set(tap) for tap in by_tap):
        raise ValueError(
            f"{name}.tokens gives the taps {list(by_tap)}; one must be {LAST!r}, none {ALL!r}, none with a colon."
        )
    return by_tap
