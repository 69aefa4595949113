"""Writes the slice of Fashion-MNIST that ships with the package: class-balanced PNG images in Parquet.

    python recipes/pretrain/fashion_mnist_slice.py <folder of the idx files> src/attentive_probes/assets/fashion-mnist

Train and validation come from the official train part (seed 0, disjoint), test from the official test part.
"""

from __future__ import annotations

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, Image
from PIL import Image as PILImage

NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
SPLITS = {"train": ("train", 10_000), "validation": ("train", 1_000), "test": ("t10k", 4_000)}


def read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of an official part, from its gzipped idx files."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def balanced(labels: np.ndarray, pool: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` indices out of `pool` in random order, as many of each class."""
    per_class = size // len(NAMES)
    chosen = [rng.permutation(pool[labels[pool] == c])[:per_class] for c in range(len(NAMES))]
    return rng.permutation(np.concatenate(chosen))


def slice_rows(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split -> rows of its images in their official part, given the labels of every part; seed 0."""
    rng = np.random.default_rng(0)
    free = {part: np.arange(len(of_part)) for part, of_part in labels.items()}
    chosen = {}
    for split, (part, size) in SPLITS.items():
        chosen[split] = balanced(labels[part], free[part], size, rng)
        free[part] = np.setdiff1d(free[part], chosen[split])
    return chosen


def png(image: np.ndarray) -> bytes:
    """One image as PNG."""
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """One split as Parquet that `datasets` reads with image and class features."""
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    cells = [{"bytes": png(image), "path": None} for image in images]
    table = pa.table({"image": cells, "label": labels.tolist()}, schema=features.arrow_schema)
    pq.write_table(table, path, compression="zstd", compression_level=19)


def main() -> None:
    """Write all splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the four official idx files")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--whole", action="store_true", help="write all 60,000 + 10,000 images as train and test")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    if arguments.whole:
        for split, part in (("train", "train"), ("test", "t10k")):
            write(arguments.target / f"{split}.parquet", *read_part(arguments.source, part))
        return
    parts = {part: read_part(arguments.source, part) for part in ("train", "t10k")}
    chosen = slice_rows({part: labels for part, (_, labels) in parts.items()})
    for split, (part, _) in SPLITS.items():
        images, labels = parts[part]
        write(arguments.target / f"{split}.parquet", images[chosen[split]], labels[chosen[split]])


if __name__ == "__main__":
    main()
