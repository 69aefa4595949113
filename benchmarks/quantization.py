"""What fewer bits for the weights of a backbone cost a probe: accuracy image by image, and bytes.

    PYTHONPATH=.venv/quantization python benchmarks/quantization.py

The embedded backbone with an EP-8 head, trained on 4,000 images of Fashion-MNIST in full precision, is read in fewer
bits: differences in accuracy on 2,000 test images, paired, with Newcombe's interval. `make test-quantization` installs
torchao and quanto into that folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from attentive_probes import (
    HeadConfig,
    HeadRun,
    ProbeForImageClassification,
    ProbeSweep,
    ProbeTrainer,
    ProbeTrainingArguments,
)
from attentive_probes.data.load import load_split
from attentive_probes.scores.statistics import compare_proportions

NAMES = ("torchao-int8", "quanto-int8", "quanto-int4")
BACKBONE, DATA = "embedded:mae-tiny-fashion", "embedded:fashion-mnist"


def train(folder: Path) -> Path:
    """A trained probe in full precision."""
    data = load_split(DATA, "train[:5000]")
    runs = {"ep8": HeadRun(HeadConfig("ep", {"num_queries": 8}), 0.01)}
    sweep = ProbeSweep.from_backbone(BACKBONE, runs, labels=data.features["label"].names)
    arguments = ProbeTrainingArguments(str(folder), 5, batch_size=64)
    ProbeTrainer(sweep, arguments, data.select(range(4000)), data.select(range(4000, 5000))).train()
    return folder / "probes" / "ep8"


@torch.no_grad()
def answers(probe: ProbeForImageClassification, data: object) -> torch.Tensor:
    """Whether each image is recognized."""
    found = []
    for first in range(0, len(data), 100):
        rows = data[first : first + 100]
        pixels = probe.image_processor([image.convert("RGB") for image in rows["image"]], return_tensors="pt")
        found.append(probe(pixels["pixel_values"]).logits.argmax(1) == torch.tensor(rows["label"]))
    return torch.cat(found)


def main() -> None:
    """Print the table."""
    test = load_split(DATA, "test[:2000]")
    table = Table("weights", "top1", "minus full [95%]", "MB of the backbone")
    with tempfile.TemporaryDirectory() as folder:
        path = train(Path(folder) / "run")
        full = None
        for name in (None, *NAMES):
            options = {} if name is None else {"quantization_config": name}
            probe = ProbeForImageClassification.from_pretrained(path, **options).eval()
            right = answers(probe, test).numpy()
            full = right if full is None else full
            found = compare_proportions(right, full)
            difference = f"{100 * found[0]:+.2f} [{100 * found[1]:+.2f}, {100 * found[2]:+.2f}]"
            size = sum(bytes_of(p) for p in probe.backbone.model.parameters()) / 1e6
            table.add_row(
                name or "full", f"{100 * right.mean():.2f}", "" if name is None else difference, f"{size:.2f}"
            )
    Console(width=100).print(table)


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes that a tensor takes, quantized or not."""
    if hasattr(tensor, "__tensor_flatten__") and type(tensor) is not torch.nn.Parameter:
        return sum(bytes_of(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


if __name__ == "__main__":
    main()
