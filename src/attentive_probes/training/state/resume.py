"""Stopping and going on: one file holds everything that the rest of a run depends on, for all processes."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import gather_object

from attentive_probes.data.split import Split
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.history import cut_history, history_mark, read_history
from attentive_probes.evaluation.runs.run_files import PREDICTIONS, RESULTS, STATE, TESTED
from attentive_probes.files.checksums import checksum_of, load_checked, save_checked
from attentive_probes.files.fingerprint import fingerprint_of
from attentive_probes.machine.environment import library_versions
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems import Scores
from attentive_probes.problems.target_scores import TargetScores
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.class_sums import score_classes
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.checkpoint import check_output_dir
from attentive_probes.training.state.kept_epochs import EpochSelection
from attentive_probes.training.state.target_records import save_target_records
from attentive_probes.training.steps.loop import EpochProgress, TrainingLoop

logger = logging.getLogger(__name__)
Identity: TypeAlias = dict[str, Any]
ADDRESS = re.compile(" at 0x[0-9a-f]+")  # of a function, another one in every process
WARNED = ("versions",)  # what may differ, but may show in the numbers

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
    "save_seconds",
)


def save_run(
    folder: Path, epoch: int, loop: TrainingLoop, selection: EpochSelection, results: SweepResults, identity: Identity
) -> None:
    """Write the state after an epoch, or within the one that follows, of all processes in one file, in one step."""
    draws = {
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    of_processes = gather_object([draws])
    if not loop.accelerator.is_main_process:
        return
    state = {
        "epoch": epoch,
        "steps_done": loop.steps_done,
        "progress": asdict(loop.progress),
        "diverged": {**loop.diverged, **loop.gradients.diverged()},
        "scaler": loop.scaler.state_dict(),
        "heads": {name: loop.sweep.learned(name) for name in loop.sweep.runs},
        "best": selection.states,
        "active": sorted(loop.sweep.active),
        "optimizer": loop.optimizer.state_dict(),
        "schedule": loop.schedule.state_dict(),
        "draws": of_processes,
        "arguments": results.arguments,
        "identity": identity,
        "results": [asdict(replace(head, history=[])) for head in results.heads],
        "known": {key: getattr(results, key) for key in ("date", "data", "warnings", "seconds")},
        "history": history_mark(folder),
    }
    save_checked(state, folder / STATE)


def goes_on(folder: Path, arguments: ProbeTrainingArguments, results: SweepResults, identity: Identity) -> bool:
    """Whether a run goes on with what its folder holds; it begins there if there is nothing.

    Every process asks, and one that writes there afterwards does so after all have looked.

    Raises:
        ValueError: If the folder holds another run, or processes see different states of it.
    """
    check_output_dir(folder, arguments.overwrite, arguments.resume)
    if not arguments.resume or not _is_there(folder):
        return False
    check_resumable(folder, results, identity)
    return True


def _is_there(folder: Path) -> bool:
    path = folder / STATE
    found = gather_object([checksum_of(path) if path.exists() else "none"])
    if len(set(found)) > 1:
        raise ValueError(
            f"The processes see {len(set(found))} states of the run in {str(folder)!r} (checksums {found}); let all of "
            "them read and write one folder, or copy the state of one to the others."
        )
    return found[0] != "none"


def check_resumable(folder: Path, results: SweepResults, identity: Identity) -> None:
    """Check that the run of a folder has the same heads, arguments, backbone and data.

    Raises:
        ValueError: If it has not; the text names the difference.
    """
    state = load_checked(folder / STATE)
    settings = ("name", "head", "learning_rate", "query_learning_rate", "weight_decay", "seed")
    held = [[head.get(key) for key in settings] for head in state["results"]]
    if held != [[getattr(head, key) for key in settings] for head in results.heads]:
        raise ValueError(f"The run in {str(folder)!r} has other heads; resume it with the same ones.")
    theirs = {**state["arguments"], **state["identity"]}
    for key, value in {**results.arguments, **identity}.items():
        if key in FREE_ARGUMENTS or theirs.get(key) == value:
            continue
        if key in WARNED:
            logger.warning("The run was begun with %s=%s and goes on with %s.", key, theirs.get(key), value)
            continue
        raise ValueError(
            f"The run in {str(folder)!r} has {key}={theirs.get(key)!r}, not {value!r}; resume it with the same, or "
            "start again with train.overwrite=true."
        )


def save_tested(
    folder: Path, baseline: Scores, best: Scores, sweep: ProbeSweep, split: Split, temperature: float | None = None
) -> None:
    """Keep what a tested run cannot find out again without a second look at the test split.

    Comparisons need to know on which images the baseline is right; people and pictures, what the selected head said.
    """
    config = copy(sweep.config)
    config.temperature = temperature
    if isinstance(best, ClassScores) and best.records is not None:
        places = split.rows_at(best.records.rows)
        best.records.save(folder / PREDICTIONS, sweep.config.id2label, places)
    if isinstance(best, TargetScores) and best.rows is not None:
        save_target_records(best, config, split.rows_at(best.rows), folder / PREDICTIONS)
    correct = baseline.correct if isinstance(baseline, ClassScores) else np.empty(0, bool)
    save_checked(torch.from_numpy(correct.copy()), folder / TESTED)


def load_finished(folder: Path, selection: EpochSelection) -> tuple[SweepResults, Scores | None] | None:
    """Results of a run whose test split was scored, and its baseline, right or wrong on each image; else `None`.

    The selection gets the best epoch of every head.

    Raises:
        ValueError: If one of its files is damaged.
    """
    if not (folder / RESULTS).exists() or not (folder / TESTED).exists():
        return None
    try:
        results = SweepResults.load(folder / RESULTS)
    except ValueError as error:
        raise ValueError(f"{error}. Restore it from a copy, or start again with train.overwrite=true.") from error
    if not any(head.test for head in results.heads):
        return None
    selection.restore(results.heads, load_checked(folder / STATE)["best"])
    correct = load_checked(folder / TESTED)
    if not len(correct):
        return results, None
    return results, score_classes(torch.stack([~correct, correct], 1).float(), torch.ones(len(correct)).long())


def load_run(folder: Path, loop: TrainingLoop, selection: EpochSelection, results: SweepResults) -> int:
    """Put a run back to where `save_run` left it, on any number of processes; returns the number of epochs done."""
    state = load_checked(folder / STATE)
    for name, learned in state["heads"].items():
        loop.sweep.restore(name, learned)
    loop.keep_only(set(state["active"]))
    loop.optimizer.load_state_dict(state["optimizer"])
    loop.schedule.load_state_dict(state["schedule"])
    loop.go_to(state["steps_done"], EpochProgress(**state["progress"]))
    loop.diverged = state["diverged"]
    loop.gradients.restore(loop.diverged)
    loop.scaler.load_state_dict(state["scaler"])
    for key, value in state["known"].items():
        setattr(results, key, value)
    if loop.accelerator.is_main_process:
        cut_history(folder, state["history"])
    loop.accelerator.wait_for_everyone()
    histories = read_history(folder)
    results.heads[:] = [
        replace(HeadResult(**head), history=histories.get(head["name"], [])) for head in state["results"]
    ]
    selection.restore(results.heads, state["best"])
    rank, draws = loop.accelerator.process_index, state["draws"]
    if rank < len(draws):  # a new process goes on with the draws that its seed gave it
        torch.set_rng_state(draws[rank]["rng"])
        if draws[rank]["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(draws[rank]["cuda_rng"])
    return state["epoch"]


def identity_of(sweep: ProbeSweep, splits: Mapping[str, Split], augmentation: Any, processor: Any) -> Identity:
    """What a run is about, beside its arguments, as plain values: a run that differs in them is another one.

    Args:
        sweep: Heads and backbone.
        splits: Name -> split; a stream is known by its name alone.
        augmentation: What is random about training images.
        processor: The image processor.
    """
    config = sweep.config
    return {
        "backbone": sweep.backbone.fingerprint(),
        "classes": fingerprint_of({"labels": config.id2label, "values": config.label_values}),
        "problem_type": config.problem_type,
        "augmentation": "none" if augmentation is None else ADDRESS.sub("", str(augmentation.describe())),
        "image processor": fingerprint_of(processor.to_dict()),
        "versions": {name: library_versions()[name] for name in ("torch", "transformers", "attentive-probes")},
        **{f"{name} images": split.fingerprint() for name, split in splits.items()},
    }
