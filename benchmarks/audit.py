"""What an audit finds: precision and recall for flipped labels and planted near duplicates, on Fashion-MNIST.

    OMP_NUM_THREADS=2 python benchmarks/audit.py

10,000 training images, features of the embedded backbone (class token and mean patch), five folds, three seeds of what
is flipped or planted. Flips go to a class drawn at random. A copy is a picture again after JPEG at quality 60, a shift
by a pixel, 15% more brightness, or scaling to 21 pixels and back.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from datasets import Dataset
from PIL import Image, ImageChops, ImageEnhance
from rich.console import Console
from rich.table import Table
from torch import Tensor

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.auditing.label_errors import cross_fitted, label_suspects
from attentive_probes.auditing.neighbours import (
    equal_pixels,
    find_neighbours,
    near_duplicates,
    standardized,
    thumbnail,
)
from attentive_probes.data.load import load_split
from attentive_probes.data.splitting.folds import folds_of

SEEDS = (0, 1, 2)
COPIES = 200


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=60)
    return Image.open(file)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG": _jpeg,
    "shift": lambda image: ImageChops.offset(image.convert("RGB"), 1, 0),
    "brightness": lambda image: ImageEnhance.Brightness(image.convert("RGB")).enhance(1.15),
    "scaling": lambda image: image.convert("RGB").resize((21, 21)).resize(image.size),
}


@torch.no_grad()
def features_of(sweep: ProbeSweep, images: list[Image.Image]) -> Tensor:
    """Class token and mean patch `(N, 2D)`."""
    found = []
    for first in range(0, len(images), 250):
        batch = [image.convert("RGB") for image in images[first : first + 250]]
        pixels = sweep.image_processor(batch, return_tensors="pt")["pixel_values"]
        tokens = sweep.read(pixels)["last"]
        found.append(torch.cat([tokens.cls[:, 0], tokens.patches.mean(1)], 1))
    return torch.cat(found)


def flipped(features: Tensor, labels: np.ndarray, share: float, seed: int) -> tuple[float, float]:
    """Precision and recall for a share of labels that are wrong."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[rows] = (labels[rows] + rng.integers(1, 10, len(rows))) % 10
    folds = folds_of(noisy, 5, seed)
    found = label_suspects(cross_fitted(features, torch.from_numpy(noisy), folds, 10), noisy)
    hits = len({suspect.row for suspect in found} & set(rows.tolist()))
    return hits / max(1, len(found)), hits / len(rows)


def planted(sweep: ProbeSweep, features: Tensor, images: list[Image.Image], change: str, seed: int) -> list[float]:
    """Recall of changed copies by features, by pixels, and by either; and other pairs found, per 1,000 images."""
    rows = np.random.default_rng(seed).choice(len(images), COPIES, replace=False)
    copies = [CHANGES[change](images[row]) for row in rows]
    known = torch.cat([features, features_of(sweep, copies)])
    by_features = {pair[:2] for pair in near_duplicates(find_neighbours(standardized(known, features)))}
    by_pixels = {pair[:2] for pair in equal_pixels(np.stack([thumbnail(image) for image in [*images, *copies]]))}
    wanted = {(int(row), len(images) + place) for place, row in enumerate(rows)}
    found = [len(pairs & wanted) / COPIES for pairs in (by_features, by_pixels, by_features | by_pixels)]
    others = sum(second < len(images) for _, second in by_features | by_pixels)
    return [*found, 1000 * others / len(images)]


def labels_table(features: Tensor, labels: np.ndarray) -> Table:
    """Label suspects, by the share of labels that are wrong."""
    title = f"label suspects, {len(labels):,} images, mean over {len(SEEDS)} seeds"
    table = Table("flipped", "precision", "recall", title=title)
    for share in (0.01, 0.05, 0.1):
        values = np.mean([flipped(features, labels, share, seed) for seed in SEEDS], 0)
        table.add_row(f"{share:.0%}", *(f"{100 * value:.1f}%" for value in values))
    return table


def copies_table(sweep: ProbeSweep, features: Tensor, images: list[Image.Image]) -> Table:
    """Planted copies, by what was done to them."""
    title = f"{COPIES} planted copies, recall, mean over seeds"
    table, others = Table("copy", "by features", "by pixels", "by either", title=title), []
    for change in CHANGES:
        *found, other = np.mean([planted(sweep, features, images, change, seed) for seed in SEEDS], 0)
        table.add_row(change, *(f"{100 * recall:.1f}%" for recall in found))
        others.append(other)
    table.caption = f"other pairs that are found, per 1,000 images: {np.mean(others):.1f}"
    return table


def main() -> None:
    """Print both tables."""
    data = load_split("embedded:fashion-mnist", "train")
    assert isinstance(data, Dataset)
    labels, images = np.array(data["label"]), list(data["image"])
    head = HeadConfig("concat", tokens=("cls", "mean", "patches"))
    sweep = ProbeSweep.from_backbone("embedded:mae-tiny-fashion", {"a": HeadRun(head)}, num_labels=10)
    features = features_of(sweep, images)
    Console(width=120).print(copies_table(sweep, features, images), labels_table(features, labels))


if __name__ == "__main__":
    main()
