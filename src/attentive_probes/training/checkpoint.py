"""The output folder of a run: claimed before the work, written so that a crash leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from attentive_probes.evaluation.history import HISTORY

RESULTS = "results.json"
CHECKPOINTS = "checkpoints"
PROBES = "probes"

HeadStates = dict[str, dict[str, Tensor]]


def check_output_dir(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Check that a run may write to `folder`.

    Raises:
        ValueError: If it holds another run and neither `overwrite` nor `resume` is on, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir {str(folder)!r} is a file; name a folder.")
    held = [name for name in (RESULTS, CHECKPOINTS, PROBES) if (folder / name).exists()]
    if held and not overwrite and not resume:
        raise ValueError(
            f"output_dir {str(folder)!r} already holds a run ({', '.join(held)}); "
            "name another folder, pass resume=true to go on with it, or overwrite=true to replace it."
        )


def clear_output_dir(folder: Path) -> None:
    """Remove what an earlier run wrote to `folder`, and nothing else; create the folder if there is none."""
    for name in (RESULTS, HISTORY):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, PROBES):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CHECKPOINTS).mkdir(parents=True)


def save_states(path: Path, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the tensors of all heads to one file, replacing it in a single step."""
    temporary = path.with_suffix(".partial")
    save_file({f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.items()}, temporary)
    os.replace(temporary, path)


def load_states(path: Path) -> HeadStates:
    """Read what `save_states` wrote."""
    states: HeadStates = {}
    for full_key, tensor in load_file(path).items():
        name, _, key = full_key.rpartition("/")
        states.setdefault(name, {})[key] = tensor
    return states
