"""Whether a configuration and the weights beside it can belong together, before memory is taken for either."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

WEIGHTS = (".safetensors", ".bin", ".h5")
PARAMETERS_PER_BYTE = 8  # far more than any quantization leaves
SMALL = 10**7  # parameters that are no harm


def check_size(folder: Path, config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> None:
    """Check that a configuration does not describe a model far larger than the weights beside it.

    Raises:
        ValueError: If it does.
    """
    stored = sum(path.stat().st_size for path in folder.glob("*") if path.suffix in WEIGHTS) if folder.is_dir() else 0
    if not stored:
        return
    try:
        with torch.device("meta"):
            count = sum(p.numel() for p in model_class(deepcopy(config)).parameters())
    except (RuntimeError, NotImplementedError):
        return  # it cannot be built without memory
    if count > max(PARAMETERS_PER_BYTE * stored, SMALL):
        raise ValueError(
            f"The configuration describes {count:,} parameters, but the weights in {str(folder)!r} hold {stored:,} "
            "bytes; they do not belong together."
        )
