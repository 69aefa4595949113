"""Exported probes beside eager PyTorch and `torch.compile`: inference time, and what 8-bit weights cost in accuracy.

    python benchmarks/export.py --rounds 7

Two probes with an EP-8 head: on the embedded backbone (28 pixels), trained on 4,000 images of Fashion-MNIST, and on a
ViT-S/16 (224 pixels) with random weights, which says nothing about accuracy. Wall time per image, sides in turns,
medians of the rounds and of ratios per round, one thread, batches of 1 and 16. Accuracies are over the same 4,000 test
images, paired, with Newcombe's interval; nothing was selected on them. Both tables go to `docs/export/`.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

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
from attentive_probes.serving.export import export_probes

FOLDER = Path(__file__).parents[1] / "docs" / "export"
BACKBONE, DATA, HEAD = "embedded:mae-tiny-fashion", "embedded:fashion-mnist", HeadConfig("ep", {"num_queries": 8})
Call = Callable[[torch.Tensor], object]


def trained(folder: Path) -> ProbeForImageClassification:
    """The probe on the embedded backbone."""
    data = load_split(DATA, "train[:5000]")
    sweep = ProbeSweep.from_backbone(BACKBONE, {"ep8": HeadRun(HEAD, 0.01)}, labels=data.features["label"].names)
    arguments = ProbeTrainingArguments(str(folder), 5, batch_size=64)
    ProbeTrainer(sweep, arguments, data.select(range(4000)), data.select(range(4000, 5000))).train()
    return ProbeForImageClassification.from_pretrained(folder / "probes" / "ep8").eval()


def small_vit(folder: Path) -> ProbeForImageClassification:
    """A ViT-S/16 with random weights."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return ProbeForImageClassification.from_backbone(str(folder), HEAD, num_labels=10).eval()


def onnx_call(path: Path) -> Call:
    """A file run by onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixel_values": pixels.numpy()})[0]


def openvino_call(path: Path) -> Call:
    """A file run by OpenVINO on one thread, in float32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    return lambda pixels: model([pixels.numpy()])[0]


def sides_of(probe: ProbeForImageClassification, folder: Path) -> dict[str, Call]:
    """Name -> how the logits of pixels are computed."""
    compiled = torch.compile(lambda pixels: probe(pixels).logits, dynamic=False)
    paths = {name: folder / name for name in ("full.onnx", "int8.onnx", "full.xml", "int8.xml")}
    for name, path in paths.items():
        export_probes(probe, path, int8=name.startswith("int8"))
    return {
        "eager": lambda pixels: probe(pixels).logits,
        "torch.compile": compiled,
        "ONNX": onnx_call(paths["full.onnx"]),
        "ONNX, int8": onnx_call(paths["int8.onnx"]),
        "OpenVINO": openvino_call(paths["full.xml"]),
        "OpenVINO, int8": openvino_call(paths["int8.xml"]),
    }


def timed(sides: dict[str, Call], pixels: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Name -> milliseconds per image in each round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call(pixels)
    repeats = max(1, 64 // len(pixels)) if pixels.shape[-1] < 100 else 1
    for _ in range(rounds):
        for name, call in sides.items():
            begin = time.perf_counter()
            for _ in range(repeats):
                call(pixels)
            times[name].append(1000 * (time.perf_counter() - begin) / repeats / len(pixels))
    return times


def speed_rows(name: str, sides: dict[str, Call], size: int, rounds: int) -> list[dict[str, str]]:
    """Rows of the table of times."""
    found = []
    for batch in (1, 16):
        times = timed(sides, torch.randn(batch, 3, size, size), rounds)
        for side, values in times.items():
            ratio = np.median(np.array(values) / np.array(times["eager"]))
            row = {"probe": name, "batch": str(batch), "side": side, "ms per image": f"{np.median(values):.2f}"}
            found.append(row | {"of eager": f"{ratio:.2f}"})
    return found


def accuracy_rows(probe: ProbeForImageClassification, sides: dict[str, Call]) -> list[dict[str, str]]:
    """Rows of the table of 8-bit weights."""
    data = load_split(DATA, "test")
    right: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for first in range(0, len(data), 100):
        rows = data[first : first + 100]
        pixels = probe.image_processor([image.convert("RGB") for image in rows["image"]], return_tensors="pt")
        for name, call in sides.items():
            right[name].append(np.asarray(call(pixels["pixel_values"])).argmax(1) == np.array(rows["label"]))
    joined = {name: np.concatenate(parts) for name, parts in right.items()}
    found = []
    for name in ("eager", "ONNX", "ONNX, int8", "OpenVINO, int8"):
        change = compare_proportions(joined[name], joined["eager"])
        text = (
            "" if name == "eager" else f"{100 * change.mean:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
        )
        found.append({"form": name, "top1": f"{100 * joined[name].mean():.2f}", "minus eager, 95%": text})
    return found


def write(name: str, rows: list[dict[str, str]]) -> None:
    """Write a table."""
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values(), sep=" | ")


@torch.no_grad()
def main() -> None:
    """Measure both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with torch.enable_grad():
            probe = trained(place / "run")
        sides = sides_of(probe, place)
        write("int8", accuracy_rows(probe, {name: side for name, side in sides.items() if name != "torch.compile"}))
        rows = speed_rows("embedded", sides, 28, rounds)
        vit = small_vit(place / "vit")
        rows += speed_rows("ViT-S/16", sides_of(vit, place), 224, rounds)
        write("speed", rows)


if __name__ == "__main__":
    main()
