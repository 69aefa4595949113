"""The output folder of a run: claimed before the work, written so that a crash leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from attentive_probes.evaluation.runs.run_files import (
    BEST,
    CHECKPOINTS,
    OF_ONE_RUN,
    PROBES,
    RESULTS,
    STATE,
    probe_folder,
)
from attentive_probes.files.writing import whole_file, whole_folder
from attentive_probes.machine.processes import process_state
from attentive_probes.probe.files.loading import is_whole
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep

LOCK = ".lock"
PATIENCE = 10.0  # seconds in which the workers of a killed run are gone

HeadStates = dict[str, dict[str, Tensor]]


def check_output_dir(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Check that a run may write to `folder`.

    Raises:
        ValueError: If it holds another run and neither `overwrite` nor `resume` is on, it holds one that nothing can go
            on from, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir {str(folder)!r} is a file; name a folder.")
    held = [name for name in (STATE, RESULTS, PROBES) if (folder / name).exists()]
    if overwrite or not held or (resume and STATE in held):
        return
    ways = "name another folder, go on with it (--resume, or resume=True), or replace it (train.overwrite=true)."
    if resume:
        ways = f"but no {STATE} to go on from; name another folder, or replace it (train.overwrite=true)."
    raise ValueError(f"output_dir {str(folder)!r} already holds a run ({', '.join(held)}); {ways}")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A context in which the folder is there and other runs are kept out of it; it nests.

    Every process of a run enters it; the first one holds the lock, which ends with its process, however that ends.

    Raises:
        ValueError: If the folder cannot be written to, or another run is writing to it.
    """
    lock, problem, state = None, None, process_state()
    if state.is_main_process:
        lock = FileLock(folder / LOCK, timeout=PATIENCE, is_singleton=True, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            problem = f"Another run is writing to output_dir {str(folder)!r}; wait for it, or name another folder."
        except OSError as error:
            problem = f"output_dir {str(folder)!r} cannot be written to ({error}); name another folder."
    (problem,) = broadcast_object_list([problem])
    if problem is not None:
        raise ValueError(problem)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
            if not lock.is_locked and os.listdir(folder) == [LOCK]:  # nothing came of it
                shutil.rmtree(folder)


def bytes_of_run(sweep: ProbeSweep) -> int:
    """About what a run writes: its heads as probes, at their best and last epoch, and twice the state it goes on from.

    A state holds tensors, best tensors, and two moments for each; a probe that holds its backbone, all of that.
    """
    learned = sum(p.numel() for head in sweep.heads.values() for p in head.parameters())
    learned += sum(p.numel() for p in sweep.adapter_parameters.values())
    backbone = sum(p.numel() * p.element_size() for p in sweep.backbone.parameters())
    return 4 * learned * (3 + 2 * 4) + (len(sweep.runs) * backbone if sweep.config.self_contained else 0)


def clear_output_dir(folder: Path) -> None:
    """Remove what an earlier run wrote to `folder`, and nothing else; the folder is there."""
    for name in OF_ONE_RUN:
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, PROBES, BEST):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CHECKPOINTS).mkdir(parents=True)


def save_whole(probe: ProbeForImageClassification, folder: Path) -> None:
    """Save a probe of a run so that its folder appears when it is whole; one that is there stays, unless damaged."""
    if not folder.exists() or not is_whole(folder):
        with whole_folder(folder) as partial:
            probe.save_pretrained(partial)


def replace_whole(probe: ProbeForImageClassification, folder: Path) -> None:
    """Save a probe of a run in the place of one that is there, in a single step."""
    with whole_folder(folder) as partial:
        probe.save_pretrained(partial)


def save_best(folder: Path, name: str) -> None:
    """Copy the probe of a run that was selected to a place that is the same for every run."""
    with whole_folder(folder / BEST) as partial:
        shutil.copytree(probe_folder(folder, name), partial, dirs_exist_ok=True)


def save_states(path: Path, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the tensors of all heads to one file, replacing it in a single step."""
    with whole_file(path) as partial:
        save_file({f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.items()}, partial)


def load_states(path: Path) -> HeadStates:
    """Read what `save_states` wrote."""
    states: HeadStates = {}
    for full_key, tensor in load_file(path).items():
        name, _, key = full_key.rpartition("/")
        states.setdefault(name, {})[key] = tensor
    return states
