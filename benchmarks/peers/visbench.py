"""CPU time of a whole run beside VisBench's: one linear head on the class token, 200 epochs on cached tokens.

    python benchmarks/peers/visbench.py --rounds 3

The embedded backbone; 2,000 training, 500 validation and 500 test images of Fashion-MNIST in class folders. Each run is
a process of its own with one thread; user and system time are summed, medians taken over rounds in which the sides take
turns. Cold runs find no cache, warm ones that of the run before. Both sides read the class token of `ViTModel` for all
three splits, in the batches that are their default, train with AdamW in equal batches, score validation and test, and
leave a probe and a record. Ours also scores validation after every epoch and saves on the way. VisBench is installed
from PyPI into `--folder`, with the torchvision that it needs, apart from this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attentive_probes.assets import embedded_path
from attentive_probes.data.load import load_split

PACKAGES = ("visbench==0.27.0", "torchvision==0.28.0")  # torchvision of torch 2.13
SPLITS = {"train": "train[:2000]", "validation": "validation[:500]", "test": "test[:500]"}
DATA, BACKBONE = "embedded:fashion-mnist", "embedded:mae-tiny-fashion"
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 200, 256, 1e-2, 1e-4  # the defaults of VisBench

# VisBench takes any module as a backbone, but not from its command line: what its user would write.
THEIRS = """
import json
import sys

import torch

for operator in ("nms", "qnms"):  # the compiled ones of PyPI's torchvision do not load beside a CPU build of torch
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import visbench
from torchvision.transforms import Compose, Normalize, Resize, ToTensor
from transformers import ViTModel
from visbench.cache import FeatureCache
from visbench.data import ImageFolderDataset
from visbench.hub import save_probe

images, weights, cache, output = sys.argv[1:5]
epochs, batch_size, learning_rate, weight_decay = map(float, sys.argv[5:])


def features(model, pixels):
    hidden = model(pixels).last_hidden_state
    return hidden[:, 1:], hidden[:, 0].clone(), (7, 7)  # of a view, the cache would store the tokens of the whole batch


def split(name):
    return ImageFolderDataset(f"{images}/{name}", split=name)


backbone = visbench.CustomBackbone(
    ViTModel.from_pretrained(weights, add_pooling_layer=False),
    Compose([Resize((28, 28)), ToTensor(), Normalize([0.286] * 3, [0.353] * 3)]),
    name="mae-tiny-fashion",
    feature_fn=features,
    has_cls_token=True,
    image_size=28,
)
task = visbench.get_probe(
    "classification",
    pooling="cls",
    epochs=int(epochs),
    batch_size=int(batch_size),
    lr=learning_rate,
    weight_decay=weight_decay,
)
store = FeatureCache(cache)
options = {"cache": store, "results": f"{output}/results.jsonl"}
run = visbench.run(backbone, task, split("test"), split("train"), **options)
validation = split("validation")
found = store.extract_dataset(backbone, validation, pooling="cls", keep="pooled")
scores = {"validation": run.probe.evaluate(found, validation.labels()), "test": run.metrics}
save_probe(run.probe, f"{output}/probe.pt", backbone=backbone)
with open(f"{output}/scores.json", "w") as file:
    json.dump({name: 100 * score["top1"] for name, score in scores.items()}, file)
"""


@dataclass
class Side:
    """One of the two.

    Args:
        folder: Where it works.
        command: Its process.
        environment: Environment variables beside those of both.
    """

    folder: Path
    command: list[str]
    environment: dict[str, str]

    @property
    def caches(self) -> list[Path]:
        """What a cold run does not find."""
        return [self.folder / "cache", self.folder / "huggingface"]

    @property
    def output(self) -> Path:
        """What a run leaves behind."""
        return self.folder / "output"

    def run(self, is_cold: bool) -> float:
        """User and system seconds of a run, those of its children included.

        Raises:
            RuntimeError: If it fails.
        """
        for path in (self.output, *(self.caches if is_cold else [])):
            shutil.rmtree(path, ignore_errors=True)
        self.output.mkdir(parents=True)
        single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
        hub = {"HF_HOME": str(self.folder / "huggingface"), "HF_HUB_OFFLINE": "1"}
        log = self.folder / "log.txt"
        with log.open("w") as file:
            options = {"stdout": file, "stderr": file, "env": {**os.environ, **single, **hub, **self.environment}}
            process = subprocess.Popen(self.command, **options)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{self.command} failed:\n{log.read_text()}")
        return usage.ru_utime + usage.ru_stime


def install(folder: Path) -> Path:
    """A folder with VisBench and torchvision; what else they import, this environment has."""
    packages = folder / "packages"
    if not packages.exists():
        options = ["--quiet", "--no-deps", "--target", str(packages)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *PACKAGES], check=True)
    return packages


def write_images(folder: Path) -> Path:
    """The images of all splits in class folders."""
    images = folder / "images"
    for name, part in SPLITS.items():
        data = load_split(DATA, part)
        classes = data.features["label"].names
        for number, row in enumerate(data):
            path = images / name / classes[row["label"]].replace("/", "-") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            row["image"].save(path)
    return images


def ours(folder: Path, images: Path) -> Side:
    """Our command line on a recipe."""
    data = {"dataset": str(images), "validation_split": "validation", "test_split": "test", "augmentation": None}
    recipe = {
        "backbone": {"name": BACKBONE},
        "data": {**data, "tokens": "cached", "cache": {"folder": str(folder / "cache")}},
        "heads": {"linear": {"pooling": "mean", "tokens": ["cls"]}},
        "train": {
            "output_dir": str(folder / "output"),
            "num_train_epochs": EPOCHS,
            "batch_size": BATCH_SIZE,
            "drop_last": False,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=2))
    return Side(folder, [sys.executable, "-m", "attentive_probes.cli", "train", str(path)], {})


def theirs(folder: Path, images: Path, packages: Path) -> Side:
    """VisBench in a script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "probe.py"
    path.write_text(THEIRS)
    places = (images, embedded_path(BACKBONE), folder / "cache", folder / "output")
    arguments = [*places, EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY]
    return Side(folder, [sys.executable, str(path), *map(str, arguments)], {"PYTHONPATH": str(packages)})


def accuracies(mine: Side, other: Side) -> dict[str, tuple[float, float]]:
    """Split -> accuracy of our last run and of theirs, in percent."""
    head = json.loads((mine.output / "results.json").read_text())["heads"][0]
    scores = json.loads((other.output / "scores.json").read_text())
    return {split: (head[split]["top1"], scores[split]) for split in ("validation", "test")}


def measure(mine: Side, other: Side, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """State -> our seconds and theirs, round by round."""
    found: dict[str, list[tuple[float, float]]] = {"warm": [], "cold": []}
    for turn in range(rounds + 1):
        sides = (mine, other)[:: 1 if turn % 2 else -1]
        seconds = {(side.folder, is_cold): side.run(is_cold) for side in sides for is_cold in (True, False)}
        if turn > 0:  # the first also compiles to byte code
            for state, pairs in found.items():
                pairs.append((seconds[mine.folder, state == "cold"], seconds[other.folder, state == "cold"]))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("outputs/visbench"), help="for packages, images and runs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    packages, images = install(folder), write_images(folder)
    mine, other = ours(folder / "ours", images), theirs(folder / "theirs", images, packages)
    table = Table("", "ours", "VisBench", "ours / VisBench", title="one linear head, seconds of CPU time")
    for state, pairs in measure(mine, other, arguments.rounds).items():
        first, second = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        ratio = statistics.median(one / another for one, another in pairs)
        table.add_row(f"{state} run", f"{first:.2f}", f"{second:.2f}", f"{ratio:.2f}")
    for split, (first, second) in accuracies(mine, other).items():
        table.add_row(f"accuracy, {split}", f"{first:.2f}%", f"{second:.2f}%")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
