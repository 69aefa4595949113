"""One process or many: what they are is decided by Accelerate, what crosses between them is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import parse_flag_from_env, send_to_device
from torch import Tensor

T = TypeVar("T")
PRECISIONS: dict[str, torch.dtype | None] = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def process_state() -> PartialState:
    """Which process this is, found as an accelerator would: on CPUs where ACCELERATE_USE_CPU says so."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def bar_is_off(is_main: bool) -> bool | None:
    """Whether `tqdm` draws no bar: on other processes than the first, and where there is no terminal, as it finds out.

    In a log file, a bar would be a line per update.
    """
    return None if is_main else True


def make_accelerator(report_to: str | None = None, output_dir: str | None = None) -> Accelerator:
    """An accelerator: the device of this process, its place among others, and a tracker.

    Args:
        report_to: Name of a tracker; `None` for none.
        output_dir: Where trackers that write files put them.

    Raises:
        ValueError: If the tracker is unknown or not installed.
    """
    available = [tracker.value for tracker in get_available_trackers()]
    if report_to is not None and report_to not in available:
        raise ValueError(f"The tracker {report_to!r} is not installed; installed are {available}. Try pip install it.")
    accelerator = Accelerator(log_with=report_to, project_dir=output_dir)
    if report_to is not None:
        accelerator.init_trackers("attentive-probes")
    return accelerator


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """A context of mixed precision: `no`, `bf16` or `fp16`."""
    dtype = PRECISIONS[precision]
    if dtype is None and not torch.is_autocast_enabled(device.type):
        return nullcontext()  # a tenth of the time that it takes to change nothing
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def on_device(batch: T, device: torch.device) -> T:
    """A batch, tensors nested in anything, on a device; loaders give it on the CPU."""
    return batch if device.type == "cpu" else send_to_device(batch, device, non_blocking=True)


def gather_rows(tensors: Mapping[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """The rows of all processes, process by process, of tensors with as many rows as each process has images."""
    if accelerator.num_processes == 1 or not tensors:
        return dict(tensors)
    count = len(next(iter(tensors.values())))
    counts = accelerator.gather(torch.tensor([count], device=accelerator.device)).tolist()
    longest = max(counts)
    if longest == 0:
        return dict(tensors)
    found = {}
    for name, rows in tensors.items():
        padding = rows.new_zeros(longest - count, *rows.shape[1:])
        everyone = accelerator.gather(torch.cat([rows, padding])).unflatten(0, (-1, longest))
        found[name] = torch.cat([part[:length] for part, length in zip(everyone, counts, strict=True)])
    return found
