"""The epochs of a run: train, validate, keep what is best, save."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import numpy as np
from accelerate.utils import broadcast_object_list

from attentive_probes.evaluation.runs.head_result import ENTROPY
from attentive_probes.evaluation.runs.history import append_history
from attentive_probes.evaluation.runs.run_files import CHECKPOINTS, RESULTS
from attentive_probes.evaluation.split_scores import rows_of
from attentive_probes.problems import Scores
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.training.state.head_weights import settled, write_states
from attentive_probes.training.state.kept_epochs import EpochSelection
from attentive_probes.training.state.notes import note_diagnostics, note_sizes, note_validation, tell_trackers
from attentive_probes.training.state.resume import load_run, save_run
from attentive_probes.training.state.run_state import Run
from attentive_probes.training.steps.loop import TrainingLoop

logger = logging.getLogger(__name__)


def run_epochs(run: Run, loop: TrainingLoop, selection: EpochSelection, goes_on: bool) -> None:
    """Train to the end, from where a resumed run was saved last; state and results are written on the way.

    Args:
        run: Its results are filled.
        loop: Takes the steps.
        selection: Keeps every head at its best epoch.
        goes_on: Whether the folder holds a state to begin from.
    """
    results, arguments, sweep, epoch = run.results, run.arguments, run.sweep, 0
    if goes_on:
        epoch = load_run(run.folder, loop, selection, results)
        if loop.finished:  # a kill may have kept this from being written after the last state
            _checkpoint(run, selection)
    start, saved = time.perf_counter() - results.seconds, -math.inf
    is_main = run.accelerator.is_main_process

    def save() -> None:
        results.seconds = time.perf_counter() - start
        save_run(run.folder, epoch, loop, selection, results, run.identity)

    while not loop.finished:
        losses = loop.run_epoch(epoch + 1, save)
        epoch += 1
        with settled(sweep):
            scores = loop.evaluate(sorted(sweep.active)[:1] if run.groups is not None else ())
            metrics = {name: found.metrics() for name, found in scores.items() if found.are_finite}
            for name in loop.spreads.keys() & metrics.keys():
                metrics[name][ENTROPY], selection.results[name].attention_bound = loop.spreads[name]
            intervals = validation_intervals(run, {name: scores[name] for name in metrics})
            results.seconds = time.perf_counter() - start
            selection.update(epoch, results.seconds, sweep.learned, losses, metrics, loop.diverged, intervals)
            is_due = _agreed(time.perf_counter() - saved > arguments.save_seconds)
            is_last = loop.finished or all(selection.results[name].diverged is not None for name in sweep.active)
            if is_main:
                append_history(run.folder, [(name, selection.results[name].history[-1]) for name in losses])
            if is_due or is_last:
                note_validation(results, next(iter(scores.values())))
                named = {"train": run.train_split, "validation": run.validation_split}
                note_sizes(results, sweep.config, arguments, **named)  # again, for streams count as they are read
        loop.keep_only(selection.alive(sweep.active))
        if arguments.halving_epochs and epoch % arguments.halving_epochs == 0:
            loop.keep_only(selection.better_half(sweep.active))
        if is_due or is_last:
            save()  # first: without it, what is written next could not be gone on from
            _checkpoint(run, selection)
            saved = time.perf_counter()
            loop.bar.set_postfix_str(results.best_so_far)
        _tell(run, loop, epoch)
        tell_trackers(run.accelerator, epoch, losses, metrics)
    note_diagnostics(results)
    loop.close()


def validation_intervals(run: Run, scores: Mapping[str, Scores]) -> dict[str, list[float]]:
    """Head -> interval of its top-1 accuracy on validation, by groups where these are known."""
    groups = None
    if run.groups is not None and scores:
        by_name = next((one for one in scores.values() if getattr(one, "records", None) is not None), None)
        if by_name is not None:
            rows = rows_of(by_name, run.validation_split)
            groups = np.array([run.groups[row] for row in rows.tolist()])
    classes = {name: one for name, one in scores.items() if isinstance(one, ClassScores)}
    found = {name: one.intervals(groups).get("top1_interval") for name, one in classes.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def _tell(run: Run, loop: TrainingLoop, epoch: int) -> None:
    """A line per epoch, where there is no bar: in log files."""
    if loop.bar.disable and run.accelerator.is_main_process:
        logger.info("Epoch %d: %s", epoch, run.results.best_so_far)


def _agreed(verdict: bool) -> bool:
    """What the first process finds, for all: clocks differ."""
    return broadcast_object_list([verdict])[0]


def _checkpoint(run: Run, selection: EpochSelection) -> None:
    if run.accelerator.is_main_process:
        with settled(run.sweep):
            write_states(run.folder / CHECKPOINTS, run.sweep, selection, run.scale)
        run.results.save(run.folder / RESULTS)
    run.accelerator.wait_for_everyone()
