"""What the heads of a run cost, beside what they reach."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.run_files import PROBES
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.making.describe import build_head, layouts_of, reading_of

BATCH, ROUNDS = 64, 5


def costs_of(results: SweepResults, folder: Path) -> dict[str, dict[str, Any]]:
    """Head -> multiply-adds per image, milliseconds per image of a batch of 64, and bytes of its tokens at 16 bits.

    Heads that differ in rate or seed alone are measured once, with fresh weights, on the CPU.
    """
    found: dict[str, dict[str, Any]] = {}
    known: dict[str, dict[str, Any]] = {}
    for result in results.heads:
        key = repr(result.head)
        if key not in known:
            config = ProbeConfig.from_pretrained(folder / PROBES / result.name)
            known[key] = _costs(config, config.head_config)
        found[result.name] = known[key]
    return found


@torch.inference_mode()
def _costs(config: ProbeConfig, head_config: HeadConfig) -> dict[str, Any]:
    head = build_head(config, head_config).eval()
    reading = reading_of(config, head_config)
    layouts = layouts_of(config, reading)
    length, width = sum(reading.lengths(layouts)), reading.width(layouts)
    sequence, times = torch.randn(BATCH, length, width), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        head(sequence)
        times.append(time.perf_counter() - start)
    return {
        "multiply_adds": head.pooling.multiply_adds().folded + head.classifier.weight.numel(),
        "head_milliseconds": 1000 * float(np.median(times[1:])) / BATCH,
        "token_bytes": 2
        * sum(n * layouts[item.tap].width for item, n in zip(reading.items, reading.lengths(layouts), strict=True)),
    }
