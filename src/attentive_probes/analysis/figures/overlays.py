"""What a probe sees, laid over the image, as pixels: maps, evidence, and which group of queries wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from attentive_probes.analysis.explanations import Explanation
from attentive_probes.analysis.figures.style import EVIDENCE, GROUPS, MAPS


def shared_scales(explanations: Sequence[Explanation]) -> tuple[float, float]:
    """The largest attention, times uniform, and the largest evidence of some images, leaving out a few pixels."""
    top = float(
        np.nanquantile(np.concatenate([explanation.maps.numpy().ravel() for explanation in explanations]), 0.998)
    )
    reach = float(
        np.nanquantile(
            np.concatenate([explanation.evidence.abs().numpy().ravel() for explanation in explanations]), 0.99
        )
    )
    return max(2.0, top), max(1e-12, reach)


def map_overlay(explanation: Explanation, query: int, top: float) -> np.ndarray:
    """The map of a query over the image, `(height, width, 3)` between 0 and 1; `top` is the brightest."""
    return _over(_grey(explanation) * 0.62, explanation.maps[query] / top, explanation.maps[query] / top, MAPS)


def evidence_overlay(explanation: Explanation, reach: float) -> np.ndarray:
    """What each place added to the logit (red) or took from it (blue), over the image; `reach` is the strongest."""
    share = explanation.evidence / reach
    return _over((_grey(explanation) + 0.4) / 1.8, (share + 1) / 2, share.abs(), EVIDENCE)


def winner_overlay(explanation: Explanation) -> np.ndarray:
    """Colours of the groups of queries, as opaque as they are strong, over a darkened image."""
    colours = np.array([GROUPS[group % len(GROUPS)] for group in range(int(explanation.groups.max()) + 1)])
    dark = (0.55 * _grey(explanation) + 0.10)[..., None]
    strength = explanation.winner.strength.nan_to_num().numpy()[..., None]
    return np.clip((1 - strength) * dark + strength * colours[explanation.winner.winner.numpy()], 0, 1)


def _grey(explanation: Explanation) -> np.ndarray:
    return np.asarray(explanation.image.convert("L")) / 255


def _over(grey: np.ndarray, places: Tensor, strength: Tensor, colours: str) -> np.ndarray:
    """Colours at their places on a scale from 0 to 1, as opaque as they are strong; nothing where nothing was seen."""
    from matplotlib import colormaps

    opacity = (0.85 * strength.nan_to_num().clamp(0, 1) ** 0.6).numpy()[..., None]
    return (1 - opacity) * grey[..., None] + opacity * colormaps[colours](places.nan_to_num().numpy())[..., :3]
