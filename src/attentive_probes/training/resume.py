"""Stopping and going on: one file per process holds everything that the rest of a run depends on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from attentive_probes.evaluation.results import HeadResult, SweepResults
from attentive_probes.training.checkpoint import CHECKPOINTS, RESULTS
from attentive_probes.training.loop import EpochProgress, TrainingLoop
from attentive_probes.training.selection import EpochSelection

# What may differ between a run and its continuation.
FREE_ARGUMENTS = (
    "output_dir",
    "resume",
    "overwrite",
    "num_workers",
    "eval_batch_size",
    "report_to",
    "compile",
    "save_steps",
)


def save_run(
    folder: Path, epoch: int, loop: TrainingLoop, selection: EpochSelection, results: SweepResults, rank: int
) -> None:
    """Write the state after an epoch, or within the one that follows, replacing the one before in a single step."""
    path = _path(folder, rank)
    state = {
        "epoch": epoch,
        "steps_done": loop.steps_done,
        "progress": asdict(loop.progress),
        "diverged": loop.diverged,
        "scaler": loop.scaler.state_dict(),
        "heads": {name: loop.sweep.learned(name) for name in loop.sweep.runs},
        "best": selection.states,
        "active": sorted(loop.sweep.active),
        "optimizer": loop.optimizer.state_dict(),
        "schedule": loop.schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "seconds": results.seconds,
        "arguments": results.arguments,
        "results": [asdict(head) for head in results.heads],
    }
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def check_resumable(folder: Path, results: SweepResults) -> None:
    """Check that a folder holds an unfinished run with the same heads and arguments.

    Raises:
        ValueError: If it does not; the text names the difference.
    """
    path = _path(folder, 0)
    if not path.exists():
        raise ValueError(f"There is no run to resume in {str(folder)!r}; start it without resume.")
    finished = json.loads((folder / RESULTS).read_text()) if (folder / RESULTS).exists() else {"heads": []}
    if any(head["test"] for head in finished["heads"]):
        raise ValueError(f"The run in {str(folder)!r} is complete: its test split was scored; nothing is left.")
    state = _load(path)
    for key, value in results.arguments.items():
        if key not in FREE_ARGUMENTS and state["arguments"].get(key) != value:
            raise ValueError(
                f"The run in {str(folder)!r} has {key}={state['arguments'].get(key)!r}, not {value!r}; resume it with "
                "the same arguments, or start anew with overwrite."
            )
    settings = ("name", "head", "learning_rate", "weight_decay")
    held = [[head[key] for key in settings] for head in state["results"]]
    if held != [[getattr(head, key) for key in settings] for head in results.heads]:
        raise ValueError(f"The run in {str(folder)!r} has other heads; resume it with the same ones.")


def load_run(folder: Path, loop: TrainingLoop, selection: EpochSelection, results: SweepResults, rank: int) -> int:
    """Put a run back to where `save_run` left it; returns the number of epochs that are done."""
    state = _load(_path(folder, rank))
    for name, learned in state["heads"].items():
        loop.sweep.restore(name, learned)
    loop.keep_only(set(state["active"]))
    loop.optimizer.load_state_dict(state["optimizer"])
    loop.schedule.load_state_dict(state["schedule"])
    loop.go_to(state["steps_done"], EpochProgress(**state["progress"]))
    loop.diverged = state["diverged"]
    loop.scaler.load_state_dict(state["scaler"])
    results.seconds = state["seconds"]
    results.heads[:] = [HeadResult(**head) for head in state["results"]]
    selection.restore(results.heads, state["best"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])
    return state["epoch"]


def _path(folder: Path, rank: int) -> Path:
    return folder / CHECKPOINTS / f"state-{rank}.pt"


def _load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)
