"""Looking at probes: contributions against evaluation, information flow against a forward pass, the page's answer.

    python benchmarks/analysis.py --rounds 5

CPU, one thread, random weights and images, ViT-S/16 at 224 pixels, seed 0; ratios of times taken in turns in one run.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sweep import KINDS, make_cache, make_sweep, ratio, start
from transformers import ViTImageProcessorPil

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.analysis.contributions import contributions
from attentive_probes.analysis.flow import attention_flow, eager_attention
from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.serving.heads import SharedPass
from attentive_probes.serving.page_content import answer, evidence_and_map, read_file

IMAGES, BATCH = 10_000, 256


def explained_or_scored(cache: TokenCache, head: HeadConfig, rounds: int) -> tuple[float, float, float]:
    """Attention and contributions of all cached images over scoring them."""
    sweep = make_sweep(384, {"head": HeadRun(head)})
    sweep.eval()
    accelerator, probe = make_accelerator(), sweep.probe("head")

    def explain() -> None:
        for (batch,) in make_cached_loader(cache, StepPlan(BATCH), train=False):
            contributions(probe.head, probe.head.read(batch["tokens"]))

    def score() -> None:
        score_split(sweep, make_cached_loader(cache, StepPlan(BATCH), train=False), accelerator)

    return ratio(explain, score, rounds, time.perf_counter)  # reading ahead counts as it is waited for


def flow_or_forward(rounds: int) -> tuple[float, float, float]:
    """Information flow of 32 images over the eager forward pass of the same backbone."""
    backbone = make_sweep(384, {"mean": HeadRun(KINDS["mean"])}).backbone
    pixels = torch.rand(32, 3, 224, 224)

    def forward() -> None:
        with torch.no_grad(), eager_attention(backbone.model):
            for batch in pixels.split(16):
                backbone.model(pixel_values=batch)

    return ratio(lambda: attention_flow(backbone, pixels.split(16)), forward, rounds, time.perf_counter)


def answer_of_the_page(folder: Path, rounds: int) -> float:
    """Median seconds from an image file to classes, evidence and map of one EP-8 probe, two threads."""
    sweep: ProbeSweep = make_sweep(384, {"ep": HeadRun(KINDS["ep"])})
    probe = sweep.eval().probe("ep")
    probe.image_processor = ViTImageProcessorPil(size={"height": 224, "width": 224})
    path = folder / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)).save(path)
    shared, seconds = SharedPass({"ep": probe}), []
    torch.set_num_threads(2)
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        reading = read_file(str(path), [shared])["ep"]
        answer(probe, reading)
        evidence_and_map(probe, reading, None, 1)
        seconds.append(time.perf_counter() - begin)
    torch.set_num_threads(1)
    return statistics.median(seconds[1:])


def main() -> None:
    """Print the table."""
    rounds = start(__doc__, 5)
    table = Table("what", "ratio", "first s", "second s", "aim", title=f"torch {torch.__version__}, CPU, one thread")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        cache = make_cache(Path(folder) / "tokens", IMAGES, 384)
        for name, head in (("EP-8", KINDS["ep"]), ("EP-32", HeadConfig("ep", {"num_queries": 32}))):
            found = explained_or_scored(cache, head, rounds)
            table.add_row(f"contributions / scores, {IMAGES:,} cached, {name}", *(f"{x:.2f}" for x in found), "2")
        table.add_row("flow / eager forward, ViT-S/16", *(f"{x:.2f}" for x in flow_or_forward(rounds)), "1.3")
        seconds = answer_of_the_page(Path(folder), rounds)
        table.add_row("answer of the page, ViT-S/16, EP-8", "", f"{seconds:.2f}", "", "1 s")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
