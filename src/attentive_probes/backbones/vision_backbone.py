"""A vision model of transformers as a backbone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from attentive_probes.backbones.base import Backbone
from attentive_probes.backbones.geometry import LAST, PROJECTED, STAGE, Geometry
from attentive_probes.backbones.layout import find_geometry, find_stages
from attentive_probes.backbones.load import build_model, load_model
from attentive_probes.backbones.processors import image_size_of
from attentive_probes.backbones.taps import TapPoint, find_point, read_taps
from attentive_probes.backbones.trunk import blocks_of
from attentive_probes.files.fingerprint import fingerprint_of
from attentive_probes.tokens import Layouts, Tokens

PROJECTION = "visual_projection."
COMPILED = re.compile(r"(^|\.)_orig_mod\.")  # what `torch.compile` puts around a module
PLACES = ("revision", "subfolder", "cache_dir", "local_files_only")  # no token: it would travel with the backbone


class VisionBackbone(Backbone):
    """A vision model of transformers, or of timm by its way, as a source of tokens.

    Args:
        model: The vision model; its parameters are frozen here.
        geometry: Where it can be read, its token layouts and input size.

    Attributes:
        origin: What `from_pretrained` read it from, to read it again in another precision; `None` if it did not.
        full_fingerprint: Of quantized weights: that of the ones that they were made of.
    """

    def __init__(self, model: PreTrainedModel, geometry: Geometry):
        super().__init__(model, geometry)
        self._points: dict[str, TapPoint | None] = {}  # found once: the search walks through all modules
        self.origin: dict[str, Any] | None = None
        self.full_fingerprint: str | None = None

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
            **options: `revision`, `attn_implementation`, `device_map`, `quantization_config`, `subfolder`, `token` and
                the like.

        Raises:
            ValueError: If the weights cannot be found or are incomplete.
        """
        is_quantized = options.get("quantization_config") is not None
        own = deepcopy(config) if is_quantized else config  # what is written there is about the weights in memory
        backbone = cls(load_model(name, own, projection=PROJECTED in taps, dtype=dtype, **options), geometry)
        places = {key: value for key, value in options.items() if key in PLACES}
        backbone.origin = {"name": name, "config": config, "geometry": geometry, "taps": tuple(taps), **places}
        return backbone

    def weights(self) -> dict[str, Tensor] | None:
        """As in the parent; the projection of a tower, which is loaded only where it is read, does not count."""
        vars_too = {"keep_vars": True}  # a hash is remembered by the tensor itself
        state = self.model.state_dict(**vars_too) if self.adapter is None else self.adapter.base_tensors(**vars_too)
        state = {COMPILED.sub(r"\1", name): tensor for name, tensor in state.items() if not name.startswith(PROJECTION)}
        return None if self.is_quantized or any(tensor.is_meta for tensor in state.values()) else state

    def hash_weights(self) -> str | None:
        """Hash of all that is stored of the backbone, each tensor once; `None` if they are not all in memory.

        Of quantized weights, that of the ones they were made of, and how.
        """
        if not self.is_quantized:
            return super().hash_weights()
        how = getattr(self.model.config, "quantization_config", None)
        if self.full_fingerprint is None or how is None:
            return None
        return fingerprint_of({"weights": self.full_fingerprint, "quantization": how.to_dict()})

    def reread(self, dtype: torch.dtype) -> VisionBackbone:
        """What this backbone was read from, once more, in full and in another precision.

        Raises:
            ValueError: If it is not there any more.
        """
        assert self.origin is not None
        return VisionBackbone.from_pretrained(**self.origin, dtype=dtype)

    def compile_blocks(self) -> None:
        """Compile the blocks of a flat backbone one by one (they are equal: one compilation), else the whole model."""
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # some blocks are tapped, and others not
        for module in blocks_of(self.model) or [self.model]:
            module.compile()

    @property
    def num_channels(self) -> int:
        """Channels of the images that it reads."""
        return getattr(self.model.config, "num_channels", 3)

    def describe(self) -> dict[str, Any]:
        """The configuration of the model."""
        return self.model.config.to_dict()

    def read(self, pixel_values: Tensor, layouts: Layouts, receive: Callable[[str, Tokens], None]) -> None:
        """Run the model once and hand over the tokens of each tap as soon as they are there."""

        def split(tap: str, state: Tensor) -> None:
            # A backbone spread over several devices leaves its states where they arose.
            receive(tap, layouts[tap].split(state.to(pixel_values.device)))

        read_taps(self.model, pixel_values, {tap: self._point(tap) for tap in layouts}, split)

    def _point(self, tap: str) -> TapPoint | None:
        if tap not in self._points:
            is_stage = tap.startswith(f"{STAGE}:")
            stages = [module for module, _ in find_stages(self.model, self.geometry.image_size)] if is_stage else []
            self._points[tap] = None if tap == LAST else find_point(self.model, tap, stages)
        return self._points[tap]
