"""Do contributions say what a decision rests on? Patches are taken away, and the logit of the answer is watched.

    python benchmarks/deletion.py outputs/quickstart/probes/ep8 --picture docs/deletion.png

Per image the k patches that added most to the logit, those of highest attention, or random ones leave the sequence, and
the head reads the rest: attention is spread anew. Means over images of the fall of the logit, with 95% intervals.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from attentive_probes import ProbeForImageClassification
from attentive_probes.analysis.contributions import contributions
from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import COLUMN, colours_of
from attentive_probes.data.load import load_split
from attentive_probes.evaluation.predictions.read_split import read_split

COUNTS = (1, 2, 4, 8, 16, 24, 32)


def orders_of(values: Tensor, attention: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Tokens `(B, T)` of each image, those to leave first, by several rules."""
    return {
        "most supportive": values.sum(1).argsort(dim=1, descending=True),
        "highest attention": attention.mean(1).argsort(dim=1, descending=True),
        "random": torch.rand(len(values), values.shape[2], generator=generator).argsort(dim=1),
    }


@torch.no_grad()
def falls(probe: ProbeForImageClassification, dataset: object) -> dict[str, Tensor]:
    """Rule -> fall of the logit of the answer `(N, counts)` when its first patches are gone."""
    found: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)
    for batch in read_split({"probe": probe}, dataset, batch_size=256):
        sequence = batch.sequences["probe"]
        whole = contributions(probe.head, sequence)
        for rule, order in orders_of(whole.values, whole.attention, generator).items():
            rows = []
            for count in COUNTS:
                kept = order[:, count:].sort(dim=1).values
                rest = sequence.gather(1, kept[..., None].expand(-1, -1, sequence.shape[2]))
                rows.append(whole.logits - probe.head(rest).logits.gather(1, whole.classes[:, None])[:, 0])
            found.setdefault(rule, []).append(torch.stack(rows, 1))
    return {rule: torch.cat(parts) for rule, parts in found.items()}


def interval(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and half of the 95% interval of columns `(N, ...)`."""
    return values.mean(0), 1.96 * values.std(0) / math.sqrt(len(values))


def draw(found: Mapping[str, Tensor], path: Path) -> None:
    """Fall against the number of patches, a line per rule."""
    with drawing(path, (COLUMN, 2.5)) as figure:
        axis = figure.subplots()
        for (rule, values), colour in zip(found.items(), colours_of(found).values(), strict=True):
            mean, half = interval(values)
            axis.errorbar(COUNTS, mean, half, marker="o", markersize=3, capsize=2, color=colour, label=rule)
        axis.set(xlabel="patches taken away", ylabel="fall of the logit")
        axis.grid(alpha=0.3)
        axis.legend()


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe")
    parser.add_argument("--data", default="embedded:fashion-mnist")
    parser.add_argument("--split", default="test")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    probe = ProbeForImageClassification.from_pretrained(arguments.probe)
    found = falls(probe, load_split(arguments.data, arguments.split))
    images = len(next(iter(found.values())))
    table = Table("patches gone", *found, "supportive minus attention", title=f"fall of the logit, {images:,} images")
    paired = interval(found["most supportive"] - found["highest attention"])
    for i, count in enumerate(COUNTS):
        cells = [f"{m[i]:.2f} +- {h[i]:.2f}" for m, h in (*map(interval, found.values()), paired)]
        table.add_row(str(count), *cells)
    Console(width=120).print(table)
    if arguments.picture is not None:
        draw(found, arguments.picture)


if __name__ == "__main__":
    main()
