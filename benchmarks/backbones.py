"""What reading a backbone through `VisionBackbone` costs over calling it bare, in time and memory.

    python benchmarks/backbones.py --rounds 16    # CPU: one thread, process time, medians of the ratios per round

ViT-S/16 and ViT-B/16 at 224 pixels with random weights. Time: bare `model(pixel_values)` against reading `last`, and
against reading one block, and the class and mean token of all layers. Memory: bytes of all tensors alive at the peak
of the forward pass, more than with the bare model, beside the bytes of the tokens read.
"""

from __future__ import annotations

import argparse
import statistics
import weakref
from collections.abc import Callable

import torch
from heads import timed
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import ViTConfig

from attentive_probes.backbones import VisionBackbone

SIZES = {
    "ViT-S/16": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "ViT-B/16": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations create, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.alive:
                    self.alive[key] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, key, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def take_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round; the order turns from round to round."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(timed(calls[name], "cpu"))
    return {name: values[1:] for name, values in times.items()}  # the first round warms up


def peak_of(function: Callable[[], object]) -> int:
    """Bytes alive at the peak of a call, its result included."""
    with PeakMemory() as memory:
        kept = function()  # noqa: F841 (what is read counts)
    return memory.peak


@torch.no_grad()
def measure(size: str, dtype: torch.dtype, batch: int, rounds: int) -> list[str]:
    """One row of the table."""
    torch.manual_seed(0)
    backbone = VisionBackbone.from_config(ViTConfig(**SIZES[size]))
    backbone.model.to(dtype)
    pixels = torch.rand(batch, 3, 224, 224)
    pooled = dict.fromkeys(backbone.geometry.all_taps, ("cls", "mean"))
    calls = {
        "bare": lambda: backbone.model(pixels.to(dtype)).last_hidden_state,
        "last": lambda: backbone(pixels)["last"],
        "all": lambda: backbone(pixels, pooled),
        "block:3": lambda: backbone(pixels, ("block:3",))["block:3"],
    }
    times = take_turns(calls, rounds)
    peaks = {name: peak_of(call) for name, call in calls.items()}
    read = {"last": 197, "block:3": 197, "all": 24}
    kilobytes = batch * SIZES[size]["hidden_size"] * dtype.itemsize / 1000
    memory = [f"{(peaks[k] - peaks['bare']) / 1000:.0f} / {n * kilobytes:.0f}" for k, n in read.items()]
    shares = {k: [t / b - 1 for t, b in zip(times[k], times["bare"], strict=True)] for k in read}
    added = [f"{100 * statistics.median(values):+.1f}%" for values in shares.values()]
    return [size, str(dtype).removeprefix("torch."), f"{1000 * statistics.median(times['bare']):.0f}", *added, *memory]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = ("backbone", "precision", "bare ms", "last", "block:3", "all", "kB last", "kB block:3", "kB all")
    title = f"reading over the bare forward pass, B = {arguments.batch}, torch {torch.__version__}"
    table = Table(*columns, title=title, caption="kB: memory added at the peak / bytes of the tokens read")
    for size in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            table.add_row(*measure(size, dtype, arguments.batch, arguments.rounds))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
