"""Where a backbone can be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from attentive_probes.naming import unknown_name

TAPS = {
    "last": "the model's last_hidden_state",
    "prenorm": "the last block's output before the final norm",
}


def check_taps(taps: Iterable[str]) -> None:
    """Check that every tap exists.

    Raises:
        ValueError: If one does not.
    """
    for tap in taps:
        if tap not in TAPS:
            raise ValueError(unknown_name("tap", tap, TAPS))


def read_taps(model: PreTrainedModel, pixel_values: Tensor, taps: Sequence[str], **kwargs: bool) -> dict[str, Tensor]:
    """Run the backbone once and return the states `(B, prefix + N, D)` at the taps; only those are kept."""
    selection = [-1] if "prenorm" in taps else False
    output = model(pixel_values=pixel_values, output_hidden_states=selection, **kwargs)
    states = {"last": output.last_hidden_state}
    if "prenorm" in taps:
        states["prenorm"] = output.hidden_states[-1]
    return {tap: states[tap] for tap in taps}
