"""What share of the variance of patch tokens lies within images: where it is small, no attention over patches can help.

    python benchmarks/token_spread.py <data> <split> <backbone> [...] [--taps block:1 last] [--images 200]

Share: mean squared distance of the patches of an image to their average, over that of all patches to that of all.
Cosine: mean over pairs of different patches of an image. Both average over images; nothing is trained.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from attentive_probes.analysis.flow import load_for_flow, pixel_batches
from attentive_probes.data.load import load_split


def spread(patches: Tensor) -> tuple[float, float]:
    """Share of the variance within images, and mean cosine between patches of an image, of patches (B, N, D)."""
    within = (patches - patches.mean(1, keepdim=True)).square().sum()
    total = (patches - patches.mean((0, 1))).square().sum()
    units, count = F.normalize(patches, dim=-1), patches.shape[1]
    cosines = (units.sum(1).square().sum(1) - count) / (count * (count - 1))
    return (within / total).item(), cosines.mean().item()


def main() -> None:
    """Measure and print a row per backbone and tap."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("split")
    parser.add_argument("backbones", nargs="+")
    parser.add_argument("--taps", nargs="+", default=["last"])
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    dataset = load_split(arguments.data, arguments.split).shuffle(seed=0)
    dataset = dataset.select(range(min(arguments.images, len(dataset))))
    table = Table("backbone", "tap", "variance within images", "cosine of patches of an image")
    for name in arguments.backbones:
        backbone, processor = load_for_flow(name)
        found: dict[str, list[Tensor]] = {tap: [] for tap in arguments.taps}
        with torch.inference_mode():
            for pixels in pixel_batches(dataset, backbone, processor, 16):
                for tap, tokens in backbone(pixels, arguments.taps).items():
                    found[tap].append(tokens.patches)
        for tap, parts in found.items():
            share, cosine = spread(torch.cat(parts))
            table.add_row(name, tap, f"{100 * share:.0f}%", f"{cosine:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
