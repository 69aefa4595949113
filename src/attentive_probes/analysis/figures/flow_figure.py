"""The flow of several backbones side by side, as a picture and as numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import as_label, colours_of
from attentive_probes.analysis.flow import Flow, uniform_entropy
from attentive_probes.analysis.measures.attention_statistics import MAGNITUDES, STATISTICS
from attentive_probes.evaluation.predictions.prediction_files import as_cell
from attentive_probes.files.writing import csv_file

PANELS = (
    ("cls_cls_attention", "class token to itself"),
    ("pos_cls_attention", "patches to class token"),
    ("pos_self_attention", "patches to themselves"),
    ("cls_pos_entropy", "entropy, class token (nats)"),
    ("pos_pos_entropy", "entropy, patches (nats)"),
    ("pos_magnitude", "update of patches, relative"),
)


def flow_figure(flows: Mapping[str, Flow], path: str | os.PathLike) -> None:
    """Draw statistics over depth, a line per backbone; where all patches alike are looked at, a dotted line.

    Depth is the number of the block over that of all, so that backbones of different depths lie over each other.

    Args:
        flows: Name of each backbone -> its flow.
        path: Picture file to write, `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: If there is no backbone.
    """
    if not flows:
        raise ValueError("There is no backbone to draw.")
    with drawing(path, (7.2, 4.2)) as figure:
        axes = figure.subplots(2, 3, sharex=True).ravel()
        colours = colours_of(flows)
        for axis, (column, label) in zip(axes, PANELS, strict=True):
            for name, flow in flows.items():
                values = [row[column] for row in flow.rows()]
                depths = [(number + 1) / len(values) for number in range(len(values))]
                axis.plot(depths, values, marker="o", markersize=3, color=colours[name], label=as_label(name, 60))
                if column.endswith("entropy"):
                    axis.axhline(uniform_entropy(flow), color=colours[name], linestyle=":", linewidth=1)
            axis.set(ylabel=label, ylim=(0, None))
            axis.grid(alpha=0.3)
        for axis in axes[3:]:
            axis.set_xlabel("depth (share of the blocks)")
        handles, labels = axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))


def write_flows(flows: Mapping[str, Flow], path: Path) -> None:
    """Write the numbers, a row per backbone, block and attention head; sizes of updates stand in every row of a block.

    Args:
        flows: Name of each backbone -> its flow.
        path: `.csv` file.
    """
    with csv_file(
        path, ["backbone", "images", "patches", "block", "head", *STATISTICS, *MAGNITUDES], durable=False
    ) as writer:
        for name, flow in flows.items():
            for block, heads in enumerate(flow.statistics.tolist()):
                sizes = flow.magnitudes[block].tolist()
                for head, values in enumerate(heads):
                    cells = ["" if math.isnan(value) else f"{value:.6g}" for value in [*values, *sizes]]
                    writer.writerow([as_cell(name), flow.num_images, flow.num_patches, block, head, *cells])
