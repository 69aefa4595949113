"""A function run by several processes that know of each other, on this machine."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def on_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What each of `count` processes returns, in order; a single one is this process."""
    if count == 1:
        return [function(*arguments)]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_work, (count, folder, function, arguments), count)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(count)]


def _work(rank: int, count: int, folder: str, function: Callable[..., Any], arguments: tuple) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}
    os.environ.update({key: str(value) for key, value in places.items()} | {"ACCELERATE_USE_CPU": "true"})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
