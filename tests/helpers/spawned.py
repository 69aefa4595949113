"""A function run by several processes that know of each other, on this machine."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

# Imported once, in a process of which all others are copies: a start takes a moment instead of six seconds.
PRELOADED = ("torch", "torch.distributed", "transformers", "attentive_probes.experiments.run", "spawned")


def on_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What each of `count` processes returns, in order; a single one is this process."""
    if count == 1:
        return [function(*arguments)]
    with tempfile.TemporaryDirectory() as folder:
        places = (count, folder, function, arguments, dict(os.environ))
        torch.multiprocessing.start_processes(_work, places, count, start_method=_forkserver())
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(count)]


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a single process of its own returns."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(_alone, (folder, function, arguments), 1, start_method=_forkserver())
        return torch.load(Path(folder) / "0.pt")


def _forkserver() -> str:
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    return "forkserver"


def _alone(rank: int, folder: str, function: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)
    torch.save(function(*arguments), Path(folder) / f"{rank}.pt")


def _work(
    rank: int, count: int, folder: str, function: Callable[..., Any], arguments: tuple, environment: dict[str, str]
) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}
    os.environ.update({**environment, **{key: str(value) for key, value in places.items()}})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
