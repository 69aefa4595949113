"""What the heads of a run cost, beside what they reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.run_files import probe_folder
from attentive_probes.machine.timing import seconds_of
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.making.describe import build_head, layouts_of, reading_of
from attentive_probes.probe.making.head_cost import cost_of

BATCH = 64


def costs_of(results: SweepResults, folder: Path) -> dict[str, dict[str, Any]]:
    """Head -> multiply-adds per image, milliseconds per image of a batch of 64, and bytes of its tokens at 16 bits.

    Heads that differ in rate or seed alone are measured once, with fresh weights, on the CPU.
    """
    found: dict[str, dict[str, Any]] = {}
    known: dict[str, dict[str, Any]] = {}
    for result in results.heads:
        key = repr(result.head)
        if key not in known:
            config = ProbeConfig.from_pretrained(probe_folder(folder, result.name))
            known[key] = _costs(config, config.head_config)
        found[result.name] = known[key]
    return found


@torch.inference_mode()
def _costs(config: ProbeConfig, head_config: HeadConfig) -> dict[str, Any]:
    head, reading, cost = (
        build_head(config, head_config).eval(),
        reading_of(config, head_config),
        cost_of(config, head_config),
    )
    head.eval()
    layouts = layouts_of(config, reading)
    sequence = torch.randn(BATCH, sum(reading.lengths(layouts)), reading.width(layouts))
    seconds = seconds_of(lambda: head(sequence), sequence.device)
    return {
        "multiply_adds": cost.multiply_adds,
        "head_milliseconds": 1000 * seconds / BATCH,
        "token_bytes": cost.token_bytes,
    }
