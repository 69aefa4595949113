"""The frozen backbone behind every probe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from attentive_probes.backbones.geometry import LAST, PROJECTED, STAGE, Geometry
from attentive_probes.backbones.layout import find_geometry, find_stages
from attentive_probes.backbones.load import build_model, load_model
from attentive_probes.backbones.pixels import PixelNormalization
from attentive_probes.backbones.processors import image_size_of
from attentive_probes.backbones.taps import TapPoint, find_point, read_taps
from attentive_probes.backbones.trunk import blocks_of
from attentive_probes.fingerprint import tensor_fingerprint
from attentive_probes.tokens import Tokens

PROJECTION = "visual_projection."


class VisionBackbone(nn.Module):
    """A Hugging Face vision model as a source of tokens: always in evaluation mode, no gradient but for an adapter.

    Args:
        model: The vision model; its parameters are frozen here.
        geometry: Where it can be read, its token layouts and input size.

    Attributes:
        adapter: The adapter that `attentive_probes.lora` put on the model, if any; it alone is trained.
        normalization: What turns raw 8-bit pixels into the numbers that the model reads; `None` refuses them.
    """

    def __init__(self, model: PreTrainedModel, geometry: Geometry):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.geometry = geometry
        self.adapter: Any = None
        self.normalization: PixelNormalization | None = None
        self._points: dict[str, TapPoint | None] = {}  # found once: the search walks through all modules

    @classmethod
    def from_config(
        cls, config: PreTrainedConfig, geometry: Geometry | None = None, taps: Iterable[str] = ()
    ) -> VisionBackbone:
        """A backbone with fresh weights; `geometry` defaults to that of the configured image size."""
        if geometry is None:
            geometry = find_geometry(config, image_size_of(config))
        return cls(build_model(config, projection=PROJECTED in taps), geometry)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        config: PreTrainedConfig,
        geometry: Geometry,
        *,
        taps: Iterable[str] = (),
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> VisionBackbone:
        """The backbone `name` with its pretrained weights.

        Args:
            name: Hub id, local folder or `embedded:<name>`.
            config: Its configuration.
            geometry: Its geometry.
            taps: What will be read; the projection of a tower is loaded only for the tap `projected`.
            dtype: Precision of the weights.
            **options: `revision`, `attn_implementation`, `device_map`, `subfolder`, `token` and the like.

        Raises:
            ValueError: If the weights cannot be found or are incomplete.
        """
        return cls(load_model(name, config, projection=PROJECTED in taps, dtype=dtype, **options), geometry)

    def fingerprint(self) -> str | None:
        """Precision and hash of the weights; `None` if they are not all in memory.

        The projection of a tower, which is loaded only where it is read, does not count.
        """
        state = self.model.state_dict() if self.adapter is None else self.adapter.base_tensors()
        state = {name: tensor for name, tensor in state.items() if not name.startswith(PROJECTION)}
        if any(tensor.is_meta for tensor in state.values()):
            return None
        return f"{str(self.model.dtype).removeprefix('torch.')}:{tensor_fingerprint(state)}"

    def compile_blocks(self) -> None:
        """Compile the blocks of a flat backbone one by one (they are equal: one compilation), else the whole model."""
        for module in blocks_of(self.model) or [self.model]:
            module.compile()

    def train(self, mode: bool = True) -> VisionBackbone:
        """Stay in evaluation mode, but for the adapter and for modules that recompute what they do not keep."""
        super().train(False)
        if self.adapter is not None:
            self.adapter.train(mode)
            for module in self.modules():
                if getattr(module, "gradient_checkpointing", False):
                    module.training = mode  # its own flag alone: what is inside it stays in evaluation mode
        return self

    def forward(
        self, pixel_values: Tensor, taps: Sequence[str] | Mapping[str, Collection[str]] = ("last",)
    ) -> dict[str, Tokens]:
        """Tokens of images `(B, channels, H, W)` at the given taps.

        Args:
            pixel_values: The images, normalized or as raw 8-bit pixels.
            taps: Where to read; or tap -> kinds of token, of which only these are kept in memory.

        Raises:
            ValueError: If the backbone does not offer a tap, the images have another size than the probe was built for,
                or they are raw and nothing says how to normalize them.
        """
        layouts = self.geometry.layouts_of(taps)
        size = tuple(pixel_values.shape[-2:])
        if size != self.geometry.image_size:
            raise ValueError(
                f"The images are {size} pixels, but this probe reads {self.geometry.image_size}; "
                "use the image processor saved with the probe."
            )
        if pixel_values.dtype == torch.uint8:
            if self.normalization is None:
                raise ValueError("The images are raw 8-bit pixels; pass what the image processor makes of them.")
            pixel_values = self.normalization(pixel_values)
        tokens: dict[str, Tokens] = {}

        def receive(tap: str, state: Tensor) -> None:
            # A backbone spread over several devices leaves its states where they arose.
            tokens[tap] = layouts[tap].split(state.to(pixel_values.device))
            if isinstance(taps, Mapping):
                tokens[tap] = tokens[tap].keep(taps[tap])

        points = {tap: self._point(tap) for tap in taps}
        with torch.set_grad_enabled(self.adapter is not None and torch.is_grad_enabled()):
            read_taps(self.model, pixel_values.to(self.model.dtype), points, receive)
        return {tap: tokens[tap] for tap in taps}

    def _point(self, tap: str) -> TapPoint | None:
        if tap not in self._points:
            is_stage = tap.startswith(f"{STAGE}:")
            stages = [module for module, _ in find_stages(self.model, self.geometry.image_size)] if is_stage else []
            self._points[tap] = None if tap == LAST else find_point(self.model, tap, stages)
        return self._points[tap]
