"""The contract of a backbone: images in, tokens out, nothing of it trained but an adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from attentive_probes.backbones.geometry import Geometry
from attentive_probes.backbones.pixels import PixelNormalization
from attentive_probes.files.fingerprint import BETWEEN, is_older, older_fingerprint, same_tensors, tensor_fingerprint
from attentive_probes.tokens import Layouts, Tokens


def keep_weights(module: nn.Module) -> None:
    """Mark all weights of a module as loaded; else transformers draws them again when a probe is put around it."""
    for part in (*module.modules(), *module.parameters()):
        part._is_hf_initialized = True  # type: ignore[attr-defined]  # transformers' own mark


class Backbone(nn.Module, ABC):
    """A vision model as a source of tokens: always in evaluation mode, gradients only where something asks for one.

    Args:
        model: The vision model; its parameters are frozen here.
        geometry: Where it can be read, its token layouts and input size.

    Attributes:
        adapter: The adapter that `attentive_probes.probe.lora` put on the model, if any; it alone is trained.
        normalization: What turns raw 8-bit pixels into the numbers that the model reads; `None` refuses them.
    """

    def __init__(self, model: nn.Module, geometry: Geometry):
        super().__init__()
        self.model: Any = model.requires_grad_(False).eval()
        self.geometry = geometry
        self.adapter: Any = None
        self.normalization: PixelNormalization | None = None
        self._digests = WeakTensorKeyDictionary()  # of weights that were hashed

    @abstractmethod
    def read(self, pixel_values: Tensor, layouts: Layouts, receive: Callable[[str, Tokens], None]) -> None:
        """Run the model once on normalized images `(B, channels, H, W)` and hand over the tokens of each tap."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor] | None:
        """Name -> the tensors that a probe is trained on; `None` if they are not all in memory, or quantized."""

    def fingerprint(self) -> str | None:
        """Precision and hash of the weights and of which is where; `None` where `weights` is."""
        weights = self.weights()
        if weights is None:
            return None
        return f"{str(self.dtype).removeprefix('torch.')}:{tensor_fingerprint(weights, self._digests)}"

    def has_fingerprint(self, stored: str) -> bool:
        """Whether the weights, which are in memory, are those of a stored fingerprint, maybe of an older release."""
        weights, found = self.weights(), self.fingerprint()
        assert weights is not None and found is not None
        if is_older(stored):
            return stored == f"{found.partition(':')[0]}:{older_fingerprint(weights, self._digests)}"
        return same_tensors(found, stored)

    def hash_weights(self) -> str | None:
        """Hash of all that is stored of the backbone; `None` if it is not all in memory."""
        state = self.state_dict(keep_vars=True)
        return None if any(t.is_meta for t in state.values()) else tensor_fingerprint(state, self._digests)

    def has_hash(self, stored: str) -> bool:
        """Whether a stored hash, maybe of an older release, is that of this backbone."""
        found = self.hash_weights()
        assert found is not None
        if is_older(stored) and BETWEEN in found:
            return stored == older_fingerprint(self.state_dict(keep_vars=True), self._digests)
        return same_tensors(found, stored)

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Everything beside the weights that the tokens of an image depend on, as plain values."""

    @abstractmethod
    def compile_blocks(self) -> None:
        """Compile what is worth it."""

    @property
    @abstractmethod
    def num_channels(self) -> int:
        """Channels of the images that it reads."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the weights are, or the first of them that are in memory."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))

    @property
    def is_quantized(self) -> bool:
        """Whether weights are held in fewer bits than they are computed with."""
        plain = (Tensor, nn.Parameter)
        return getattr(self.model, "is_quantized", False) or any(type(p) not in plain for p in self.model.parameters())

    @property
    def is_spread(self) -> bool:
        """Whether Accelerate has spread the model over several devices, or keeps a part of it elsewhere."""
        return len(set((getattr(self.model, "hf_device_map", None) or {}).values())) > 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """Move as modules do; a model that is spread stays where it is, and gives its tokens where images come from."""
        return self if self.is_spread else super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process or into a copy: all but the hashes of these very tensors."""
        return {name: value for name, value in self.__dict__.items() if name != "_digests"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with what travelled."""
        super().__setstate__(state)
        self._digests = WeakTensorKeyDictionary()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode, but for dropout of PEFT and for modules that recompute what they do not keep."""
        tuned = [module for module in self.modules() if "base_layer" in module._modules]
        if not tuned and not (self.training or self.model.training):  # many modules, as they should be
            return self
        super().train(False)
        for layer in tuned:
            for name, part in layer.named_children():
                part.train(mode and "dropout" in name)
        for module in self.modules() if tuned else ():
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

        def receive(tap: str, found: Tokens) -> None:
            tokens[tap] = found.keep(taps[tap]) if isinstance(taps, Mapping) else found

        with torch.set_grad_enabled(torch.is_grad_enabled() and self._asks_for_gradients(pixel_values)):
            self.read(pixel_values.to(self.dtype), layouts, receive)
        return {tap: tokens[tap] for tap in taps}

    def _asks_for_gradients(self, pixel_values: Tensor) -> bool:
        """Whether a weight of the model, whoever unfroze it, or the images want a gradient."""
        return pixel_values.requires_grad or any(parameter.requires_grad for parameter in self.model.parameters())
