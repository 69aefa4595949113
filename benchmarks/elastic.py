"""One EP head at many sizes: cut after plain training, cut after elastic training, and trained at each size.

    OMP_NUM_THREADS=1 python benchmarks/elastic.py [epochs]

EP-8 on `embedded:mae-tiny-fashion`, 10,000 / 1,000 / 4,000 images of Fashion-MNIST, three seeds; of three rates the one
with the best mean over seeds on validation; test accuracies in percent, mean and deviation over seeds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from attentive_probes import ProbeForImageClassification
from attentive_probes.data.load import load_split
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.families import head_named
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.making.describe import build_head
from attentive_probes.probe.making.truncate import cut_head

RECIPE = """
backbone: {{name: embedded:mae-tiny-fashion}}
data: {{dataset: embedded:fashion-mnist, validation_split: validation, test_split: test, augmentation: null,
       tokens: cached, cache: {{folder: {folder}/tokens}}}}
heads:
  plain: {{pooling: ep, options: {{num_queries: 8}}}}
  elastic: {{pooling: ep, options: {{num_queries: 8, elastic: 8}}}}
  d2: {{pooling: ep, options: {{num_queries: 8, d_out: 2}}}}
  d4: {{pooling: ep, options: {{num_queries: 8, d_out: 4}}}}
  d8: {{pooling: ep, options: {{num_queries: 8, d_out: 8}}}}
grid: {{learning_rate: [auto/3, auto, auto*3], seed: [0, 1, 2]}}
train: {{output_dir: {folder}/run, num_train_epochs: {epochs}}}
"""
SIZES = [(8, 128), (8, 64), (8, 32), (8, 16), (4, 64), (2, 32), (1, 16)]
TRAINED = {128: "plain", 64: "d2", 32: "d4", 16: "d8"}


def seeds_of(results: SweepResults, family: str) -> list[str]:
    """Names of the heads of a family at its best rate, one per seed."""
    best = results.head(head_named(family, results.heads, results.selection_metric))
    members = [head for head in results.heads if head.family == family]
    return [head.name for head in members if head.learning_rate == best.learning_rate]


@torch.inference_mode()
def test_patches(probe: ProbeForImageClassification) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch tokens (N, 49, 128) and labels (N,) of the test images."""
    data, patches = load_split("embedded:fashion-mnist", "test"), []
    for start in range(0, len(data), 500):
        images = [image.convert("RGB") for image in data[start : start + 500]["image"]]
        pixels = probe.image_processor(images, return_tensors="pt")["pixel_values"]
        patches.append(probe.head.read(probe.backbone(pixels)))
    return torch.cat(patches), torch.tensor(data["label"])


@torch.inference_mode()
def accuracy(head: ProbeHead, patches: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy of a head in percent."""
    return 100 * (head.eval()(patches).logits.argmax(1) == labels).float().mean().item()


def main() -> None:
    """Train, cut, print."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        results = run_recipe(Recipe.of_text(RECIPE.format(folder=folder, epochs=epochs)))
        names = {family: seeds_of(results, family) for family in ("plain", "elastic", "d2", "d4", "d8")}
        probes = {
            name: ProbeForImageClassification.from_pretrained(Path(folder) / "run" / "probes" / name)
            for family in names.values()
            for name in family
        }
    patches, labels = test_patches(next(iter(probes.values())))
    print("| queries | features | plain, cut | elastic, cut | trained at this size, 8 queries |")
    print("|---:|---:|---:|---:|---:|")
    for queries, features in SIZES:
        cells = []
        for family in ("plain", "elastic", TRAINED[features]):
            found = []
            for name in names[family]:
                head = probes[name].head
                if family in ("plain", "elastic"):
                    config, state = cut_head(head, probes[name].config.head_config, queries, features)
                    head = build_head(probes[name].config, config)
                    head.load_state_dict(state)
                found.append(accuracy(head, patches, labels))
            cells.append(f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}")
        print(f"| {queries} | {features} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
