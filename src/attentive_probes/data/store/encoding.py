"""How tokens are stored: float32, float16, bfloat16, or int8 with a scale per token and a spread per channel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

ENCODINGS = ("float32", "float16", "bfloat16", "int8")
STORED = {"float32": np.float32, "float16": np.float16, "bfloat16": np.int16, "int8": np.int8}
SCALE = ".scale"
LARGEST = float(np.finfo(np.float16).max)


def bytes_per_token(encoding: str, width: int) -> int:
    """Bytes that one token of `width` channels takes."""
    return width * np.dtype(STORED[encoding]).itemsize + (2 if encoding == "int8" else 0)


def parts_of(encoding: str, num_tokens: int, width: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Suffix of each array that one image's tokens are stored in -> its shape and type."""
    parts: dict[str, tuple[tuple[int, ...], np.dtype]] = {"": ((num_tokens, width), np.dtype(STORED[encoding]))}
    if encoding == "int8":
        parts[SCALE] = ((num_tokens, 1), np.dtype(np.float16))
    return parts


def channel_spread(tokens: Tensor) -> Tensor:
    """Typical size `(D,)` of each channel over a sample of tokens `(B, T, D)`, by which int8 evens out its steps."""
    return tokens.float().flatten(0, 1).square().mean(0).sqrt().clamp(min=1e-6)


def encode(tokens: Tensor, encoding: str, spread: Tensor | None = None) -> dict[str, np.ndarray]:
    """Arrays, by suffix, that hold tokens `(B, T, D)`.

    Args:
        tokens: The tokens.
        encoding: One of `ENCODINGS`.
        spread: `(D,)`, for int8: channels are divided by it before each token is scaled to [-127, 127].

    Raises:
        ValueError: If a token is no finite number, or does not fit the encoding.
    """
    tokens = tokens.detach()  # what is narrower than float32 is made where they are, and travels as such
    _check_finite(tokens, encoding)
    if encoding == "int8":
        even = tokens.float() if spread is None else tokens.float() / spread.to(tokens.device)
        scale = even.abs().amax(-1, keepdim=True).clamp(min=1e-6) / 127
        scale = scale.clamp(max=LARGEST).half().float().clamp(min=6e-8)
        steps = (even / scale).round().clamp(-127, 127).to(torch.int8)
        return {"": steps.cpu().numpy(), SCALE: scale.half().cpu().numpy()}
    if encoding == "bfloat16":
        return {"": tokens.bfloat16().view(torch.int16).cpu().numpy()}
    return {"": tokens.to(getattr(torch, encoding)).cpu().numpy()}


def _check_finite(tokens: Tensor, encoding: str) -> None:
    largest = float(tokens.abs().amax()) if tokens.numel() else 0.0  # NaN if one of them is
    if largest <= (LARGEST if encoding == "float16" else torch.finfo(torch.float32).max):
        return
    count = int((~tokens.isfinite()).sum())
    if count:
        raise ValueError(
            f"{count} of {tokens.numel()} numbers are not finite as the backbone gives them; load it in float32 or "
            "bfloat16 (backbone.dtype)."
        )
    count = int((tokens.abs() > LARGEST).sum())
    raise ValueError(
        f"{count} of {tokens.numel()} numbers are beyond {LARGEST:g}, the largest of {encoding}; set the "
        "encoding of the cache to bfloat16 or float32 (data.cache.encoding)."
    )


def decode(arrays: Mapping[str, Tensor], encoding: str, spread: Tensor | None = None) -> Tensor:
    """Tokens `(B, T, D)` from the arrays that `encode` made, as tensors; int8 becomes float32."""
    tokens = arrays[""]
    if encoding == "bfloat16":
        return tokens.view(torch.bfloat16)
    if encoding == "int8":
        tokens = tokens.float() * arrays[SCALE].float()
        return tokens if spread is None else tokens * spread.to(tokens.device)
    return tokens


def relative_error(tokens: Tensor, encoding: str, spread: Tensor | None = None) -> float:
    """Root of the mean square error of storing tokens, over that of the tokens themselves."""
    arrays = {key: torch.from_numpy(array) for key, array in encode(tokens, encoding, spread).items()}
    tokens = tokens.detach().float().cpu()
    return ((decode(arrays, encoding, spread).float() - tokens).norm() / tokens.norm().clamp(min=1e-30)).item()
