"""How much memory a process may take: of the machine, of its container, among the processes beside it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from attentive_probes.machine.processes import process_state

KEPT = 31 * 2**20  # bytes; from 32 MiB on, blocks do not count
ROOT = Path("/sys/fs/cgroup")
FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free_memory() -> int:
    """Bytes that are free for this process: of the machine or its container, whichever has less, shared equally."""
    free = [psutil.virtual_memory().available, *map(_free_in, FILES)]
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", process_state().num_processes))
    return min(amount for amount in free if amount is not None) // max(1, neighbours)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next training step, which would otherwise page-fault every time.

    glibc hands blocks back above twice the size of the largest block that was freed, up to 32 MiB; one that nobody
    touches costs nothing. Of no effect elsewhere.
    """
    torch.empty(KEPT, dtype=torch.uint8)


def _free_in(files: tuple[str, str]) -> int | None:
    """What a control group leaves of its limit; `None` if there is no such group, or no limit."""
    try:
        limit, used = ((ROOT / name).read_text("utf-8").strip() for name in files)
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):  # "max", for none
        return None
