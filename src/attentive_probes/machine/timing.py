"""How long work takes: the median of several calls, after one that warms up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def seconds_of(work: Callable[[], Any], device: torch.device, calls: int = 4, at_least: float = 0.0) -> float:
    """Median seconds of a call, until the device is done with it.

    Args:
        work: What is timed. It is called once before, as first calls compile and allocate.
        device: Where it runs.
        calls: Number of calls that are timed, at least.
        at_least: Seconds that all calls together take, at least.
    """
    times: list[float] = []
    _timed(work, device)
    while len(times) < calls or sum(times) < at_least:
        times.append(_timed(work, device))
    return statistics.median(times)


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # kernels run on while Python is ahead
    return time.perf_counter() - start
