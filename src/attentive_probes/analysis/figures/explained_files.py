"""Where a probe looked in each of many files: a picture per file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attentive_probes.analysis.explanations import explain
from attentive_probes.analysis.figures.explanation_figure import explanation_figure
from attentive_probes.analysis.figures.plots import require_matplotlib
from attentive_probes.data.pixels.decode import open_file
from attentive_probes.probe.modeling_probe import ProbeForImageClassification


def explain_files(probe: ProbeForImageClassification, files: Sequence[Path], folder: Path) -> int:
    """Draw what a probe answered about each image, what each place added, and where its queries looked.

    Args:
        probe: A probe that reads patches.
        files: Image files; those that cannot be read are left out.
        folder: Where `<number>-<name>.png` of each goes.

    Returns:
        The number of pictures.

    Raises:
        ValueError: If the probe reads no patches.
        ImportError: If matplotlib is missing.
    """
    require_matplotlib()
    count, digits = 0, len(str(len(files)))
    for number, path in enumerate(files):
        try:
            image = open_file(path, probe.backbone.num_channels)
        except ValueError:
            continue
        explanation_figure(explain(probe, [image]), folder / f"{number:0{digits}d}-{path.stem}.png")
        count += 1
    return count
