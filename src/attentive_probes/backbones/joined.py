"""Several frozen backbones as one: each sees the image in its own size and numbers; their patches share one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTImageProcessorPil

from attentive_probes.backbones.base import Backbone
from attentive_probes.backbones.geometry import LAST
from attentive_probes.backbones.layout import find_geometry
from attentive_probes.backbones.load import load_backbone_config
from attentive_probes.backbones.pixels import PixelNormalization
from attentive_probes.backbones.processors import fit_processor, image_size_of, load_image_processor
from attentive_probes.backbones.vision_backbone import VisionBackbone
from attentive_probes.tokens import Tokens


class JoinedBackbones(nn.Module):
    """A module to be read as a backbone (`TokenModule`) that runs several.

    Its taps are `<name>.<tap>`, without the colon: `mae.block3` is block 3 of the backbone called `mae`; `last` is that
    of the first backbone. Patches of other grids are interpolated to that of the first.

    Args:
        backbones: Name -> backbone, each with the normalization of its image processor.
        taps: Taps that are read of each; or name -> taps.

    Raises:
        ValueError: If there is no backbone, a name has a dot, or a backbone knows no normalization or tap.
    """

    def __init__(self, backbones: Mapping[str, Backbone], taps: Sequence[str] | Mapping[str, Sequence[str]] = (LAST,)):
        super().__init__()
        if not backbones or any("." in name or not name for name in backbones):
            raise ValueError(f"The backbones are called {list(backbones)}; give at least one, and no name with a dot.")
        self.taps = {name: tuple(taps[name] if isinstance(taps, Mapping) else taps) for name in backbones}
        for name, backbone in backbones.items():
            if backbone.normalization is None:
                raise ValueError(
                    f"The backbone {name!r} has no normalization of 8-bit pixels; set backbone.normalization."
                )
            backbone.geometry.layouts_of(self.taps[name])
        self.members = nn.ModuleDict(backbones)
        self.image_size = max((b.geometry.image_size for b in backbones.values()), key=lambda size: size[0] * size[1])
        self.grid = next(iter(backbones.values())).geometry.tokens.grid

    @classmethod
    def from_pretrained(
        cls, names: Mapping[str, str], taps: Sequence[str] | Mapping[str, Sequence[str]] = (LAST,), **options: Any
    ) -> JoinedBackbones:
        """Load several backbones with their image processors.

        Args:
            names: Name here -> Hub id, folder or `embedded:<name>`.
            taps: Taps that are read of each; or name -> taps.
            **options: As `VisionBackbone.from_pretrained` takes them, for instance `dtype`.

        Raises:
            ValueError: If one cannot be found or read.
        """
        found: dict[str, Backbone] = {}
        for name, source in names.items():
            config = load_backbone_config(source)
            processor = load_image_processor(source)
            geometry = find_geometry(config, image_size_of(config, processor))
            read = taps[name] if isinstance(taps, Mapping) else taps
            found[name] = VisionBackbone.from_pretrained(source, config, geometry, taps=read, **options)
            fitted = fit_processor(processor, geometry.image_size, found[name].num_channels)
            found[name].normalization = PixelNormalization.of(fitted, found[name].num_channels)
        return cls(found, taps)

    @property
    def image_processor(self) -> ViTImageProcessorPil:
        """The image processor that it needs: the largest of the sizes, numbers from 0 to 1."""
        height, width = self.image_size
        return ViTImageProcessorPil(size={"height": height, "width": width}, do_normalize=False)

    def tokens(self, pixel_values: Tensor) -> dict[str, Tokens]:
        """Tap -> tokens of images `(B, 3, H, W)` between 0 and 1."""
        found: dict[str, Tokens] = {}
        for name, member in self.members.items():
            assert isinstance(member, Backbone) and member.normalization is not None
            size = member.geometry.image_size
            pixels = pixel_values.float()
            if pixels.shape[-2:] != size:
                pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
            states = member(member.normalization(255 * pixels), list(dict.fromkeys([*self.taps[name], LAST])))
            found |= {f"{name}.{tap.replace(':', '')}": self._aligned(states[tap]) for tap in self.taps[name]}
            found.setdefault(LAST, states[LAST])
        return found

    def _aligned(self, tokens: Tokens) -> Tokens:
        if tokens.grid == self.grid:
            return tokens
        maps = tokens.patches.mT.unflatten(2, tokens.grid)
        patches = F.interpolate(maps.float(), self.grid, mode="bilinear", antialias=True, align_corners=False)
        return tokens._replace(patches=patches.flatten(2).mT.to(tokens.patches.dtype), grid=self.grid)


def backbone_of_tap(tap: str) -> str:
    """Name of the backbone that a tap of `JoinedBackbones` belongs to."""
    return tap.partition(".")[0]


def relevance_by_backbone(relevance: Mapping[str, float]) -> dict[str, float]:
    """Sum shares of reading items, such as `patches@mae.block3`, by backbone."""
    found: dict[str, float] = {}
    for item, share in relevance.items():
        name = backbone_of_tap(item.partition("@")[2] or LAST)
        found[name] = found.get(name, 0.0) + share
    return found
