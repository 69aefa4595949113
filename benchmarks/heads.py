"""Steps of our heads against their textbook forms, on tokens in memory.

    python benchmarks/heads.py            # CPU: one thread, process time, interleaved, medians
    python benchmarks/heads.py --device cuda

A step is forward, cross-entropy and backward with a linear classifier; no optimizer. Both sides share their weights.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from textbook import TEXTBOOK
from torch import Tensor, nn

from attentive_probes.machine.memory import keep_freed_memory
from attentive_probes.poolings import build_pooling
from attentive_probes.tokens import SequenceLayout

# Name, options, width, tokens, precision, classes; then floor and aim of the ratio textbook / ours.
CASES = [
    ("ep", {"num_queries": 32}, 768, 196, "float32", 1000, 7, 10),
    ("ep", {"num_queries": 8}, 768, 196, "float32", 1000, 11, 14),
    ("ep", {"num_queries": 32}, 384, 196, "float32", 1000, 3.5, 5),
    ("ep", {"num_queries": 32}, 192, 196, "float32", 100, 3, 4),
    ("ep", {"num_queries": 32}, 768, 196, "bfloat16", 1000, 4, 6),
    ("aim", {"num_attention_heads": 12}, 768, 196, "float32", 1000, 15, 25),
    ("cae", {"num_attention_heads": 12}, 768, 196, "float32", 1000, 15, 25),
    ("jepa", {"num_attention_heads": 12}, 768, 196, "float32", 1000, 15, 25),
    ("alf", {"num_attention_heads": 12}, 768, 197, "float32", 1000, 25, 40),
]
GPU_CASES = [(name, options, width, 196, "bfloat16", 1000, 0, 0) for width in (768, 1024) for name, options in (
    ("ep", {"num_queries": 32}), ("ep", {"num_queries": 8}), ("aim", {"num_attention_heads": 16}),
    ("cae", {"num_attention_heads": 16}), ("jepa", {"num_attention_heads": 16}), ("alf", {"num_attention_heads": 16}),
)]  # fmt: skip
console = Console(width=120)


def make_steps(case: tuple, batch: int, device: str) -> dict[str, Callable[[], None]]:
    """One training step of the textbook form and one of ours."""
    name, options, width, length, precision, classes, *_ = case
    torch.manual_seed(0)
    dtype = getattr(torch, precision)
    pooling = build_pooling(name, width, SequenceLayout(length), options).to(device, dtype)
    classifier = nn.Linear(pooling.num_features, classes).to(device, dtype)
    tokens = torch.randn(batch, length, width, device=device).to(dtype)
    labels = torch.randint(classes, (batch,), device=device)
    parameters = [*pooling.parameters(), *classifier.parameters()]

    def step(features: Callable[[Tensor], Tensor]) -> None:
        for parameter in parameters:
            parameter.grad = None
        nn.functional.cross_entropy(classifier(features(tokens)).float(), labels).backward()

    textbook = TEXTBOOK[name]
    return {
        "textbook": lambda: step(lambda x: textbook(pooling, x)),
        "ours": lambda: step(lambda x: pooling(x).features),
    }


def interleaved(functions: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median milliseconds of each function over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(timed(function, device))
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def timed(function: Callable[[], None], device: str) -> float:
    """Seconds of one call: process CPU time on the CPU, device events on a GPU."""
    if device == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(10):
        function()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 10_000


def machine_limits(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Matrix product rate in GFLOP/s and read bandwidth in GB/s."""
    a, b = torch.randn(2048, 768, device=device, dtype=dtype), torch.randn(768, 768, device=device, dtype=dtype)
    big = torch.randn(2**26, device=device)
    functions = {"product": lambda: torch.mm(a, b), "read": lambda: big.sum()}
    seconds = {name: ms / 1000 for name, ms in interleaved(functions, 7, device).items()}
    return 2 * 2048 * 768 * 768 / seconds["product"] / 1e9, big.numel() * 4 / seconds["read"] / 1e9


def peak_memory() -> float:
    """Extra memory of an EP-32 step at its peak over the bytes of the tokens (B = 128, D = 768, float32)."""
    steps = make_steps(("ep", {"num_queries": 32}, 768, 196, "float32", 1000), 128, "cpu")
    small = make_steps(("ep", {"num_queries": 32}, 768, 196, "float32", 1000), 2, "cpu")
    small["ours"]()  # library buffers exist before the count starts
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    before = _memory("VmRSS")
    steps["ours"]()
    return (_memory("VmHWM") - before) / (128 * 196 * 768 * 4)


def _memory(field: str) -> int:
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="print the extra memory of one step and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a training loop begins
    if arguments.memory:
        print(f"{peak_memory():.2f}")
        return
    batch, cases = (64, CASES) if arguments.device == "cpu" else (256, GPU_CASES)
    table = Table(title=f"step, B = {batch}, {arguments.device}, torch {torch.__version__}, {platform.machine()}")
    for column in ("head", "D", "N", "precision", "textbook ms", "ours ms", "ratio", "floor", "aim"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for case in cases:
        name, options, width, length, precision, _, floor, aim = case
        ms = interleaved(make_steps(case, batch, arguments.device), arguments.rounds, arguments.device)
        label = f"{name} {next(iter(options.values()))}"
        ratio = f"{ms['textbook'] / ms['ours']:.1f}"
        row = (label, str(width), str(length), precision, f"{ms['textbook']:.1f}", f"{ms['ours']:.1f}", ratio)
        table.add_row(*row, f"{floor:g}", f"{aim:g}")
    console.print(table)
    for dtype in (torch.float32, torch.bfloat16):
        product, read = machine_limits(arguments.device, dtype)
        console.print(f"limits, {dtype}: matrix product {product:.0f} GFLOP/s, read {read:.1f} GB/s")
    if arguments.device == "cpu":
        linear = make_steps_of_mean(batch)
        ep8 = make_steps(CASES[1], batch, "cpu")["ours"]
        ms = interleaved({"linear": linear, "ep8": ep8}, arguments.rounds, "cpu")
        console.print(f"EP-8 step / mean + linear step: {ms['ep8'] / ms['linear']:.1f}")
        command = [sys.executable, __file__, "--memory"]
        extra = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        console.print(f"extra peak memory of an EP-32 step / bytes of the tokens: {extra}")


def make_steps_of_mean(batch: int) -> Callable[[], None]:
    """One training step of mean pooling and a linear classifier, D = 768, N = 196, float32."""
    torch.manual_seed(0)
    pooling, classifier = build_pooling("mean", 768, SequenceLayout(196), {}), nn.Linear(768, 1000)
    tokens, labels = torch.randn(batch, 196, 768), torch.randint(1000, (batch,))

    def step() -> None:
        classifier.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(classifier(pooling(tokens).features), labels).backward()

    return step


if __name__ == "__main__":
    main()
