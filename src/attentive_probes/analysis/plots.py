"""Pictures, with matplotlib (extra `plots`)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from attentive_probes.analysis.attention_maps import attention_heatmap
from attentive_probes.modeling_probe import ProbeForImageClassification


def require_matplotlib() -> None:
    """Check that matplotlib can be imported.

    Raises:
        ImportError: If not; the text names the extra to install.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'attentive-probes[plots]'.") from error


def attention_grid(
    probe: ProbeForImageClassification, images: Sequence[Image.Image], path: str | os.PathLike, max_maps: int = 8
) -> None:
    """Draw images in rows, and beside each where the first `max_maps` queries of the probe look in it.

    Brightness and colour are relative to each map's own peak, over the image in grey.

    Args:
        probe: A probe that reads patches.
        images: What to look at.
        path: Picture file to write.
        max_maps: Number of maps per image.

    Raises:
        ValueError: If there is no image, or the probe reads no patches.
        ImportError: If matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    if not images:
        raise ValueError("There is no image to draw.")
    maps = [attention_heatmap(probe, image).numpy() for image in images]
    num_maps = min(max_maps, len(maps[0]))
    figure = Figure(figsize=(1.3 * (num_maps + 1), 1.3 * len(images) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), num_maps + 1, squeeze=False)
    for row, image, heat in zip(axes, images, maps, strict=True):
        grey = np.asarray(image.convert("L").resize(heat.shape[:0:-1], Image.Resampling.BICUBIC)) / 255
        row[0].imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
        for axis, one in zip(row[1:], heat, strict=False):
            axis.imshow(grey, cmap="gray", vmin=0, vmax=1.6, interpolation="bicubic")
            strength = np.clip(one / max(one.max(), 1e-12), 0, 1)
            axis.imshow(strength, cmap="inferno", alpha=0.75 * strength**0.7, vmin=0, vmax=1, interpolation="bicubic")
        for axis in row:
            axis.set_axis_off()
    axes[0, 0].set_title("image", fontsize=9)
    for number, axis in enumerate(axes[0, 1:], start=1):
        axis.set_title(f"query {number}", fontsize=9)
    figure.savefig(path, dpi=150)
