"""The epochs of a run: train, validate, keep what is best, save."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from accelerate.utils import broadcast_object_list

from attentive_probes.evaluation.class_scores import ClassScores
from attentive_probes.evaluation.history import append_history
from attentive_probes.evaluation.results import ENTROPY
from attentive_probes.evaluation.run_files import CHECKPOINTS, RESULTS
from attentive_probes.evaluation.split_scores import Scores, rows_of
from attentive_probes.training.loop import TrainingLoop
from attentive_probes.training.outcome import settled, write_states
from attentive_probes.training.report import note_doubts, note_sizes, note_validation, tell_trackers
from attentive_probes.training.resume import load_run, save_run
from attentive_probes.training.selection import EpochSelection

if TYPE_CHECKING:
    from attentive_probes.training.trainer import ProbeTrainer

logger = logging.getLogger(__name__)


def run_epochs(trainer: ProbeTrainer, loop: TrainingLoop, selection: EpochSelection, goes_on: bool) -> None:
    """Train to the end, from where a resumed run was saved last; state and results are written on the way.

    Args:
        trainer: Its results are filled.
        loop: Takes the steps.
        selection: Keeps every head at its best epoch.
        goes_on: Whether the folder holds a state to begin from.
    """
    results, arguments, sweep, epoch = trainer.results, trainer.arguments, trainer.sweep, 0
    if goes_on:
        epoch = load_run(trainer.folder, loop, selection, results)
        if loop.finished:  # a kill may have kept this from being written after the last state
            _checkpoint(trainer, selection)
    start, saved = time.perf_counter() - results.seconds, -math.inf
    is_main = trainer.accelerator.is_main_process

    def save() -> None:
        results.seconds = time.perf_counter() - start
        save_run(trainer.folder, epoch, loop, selection, results, trainer.identity)

    while not loop.finished:
        losses = loop.run_epoch(epoch + 1, save)
        epoch += 1
        with settled(sweep):
            scores = loop.evaluate(sorted(sweep.active)[:1] if trainer.groups is not None else ())
            metrics = {name: found.metrics() for name, found in scores.items() if found.are_finite}
            for name in loop.spreads.keys() & metrics.keys():
                metrics[name][ENTROPY], selection.results[name].attention_bound = loop.spreads[name]
            intervals = validation_intervals(trainer, {name: scores[name] for name in metrics})
            results.seconds = time.perf_counter() - start
            selection.update(epoch, results.seconds, sweep.learned, losses, metrics, loop.diverged, intervals)
            is_due = _agreed(time.perf_counter() - saved > arguments.save_seconds)
            is_last = loop.finished or all(selection.results[name].diverged is not None for name in sweep.active)
            if is_main:
                append_history(trainer.folder, [(name, selection.results[name].history[-1]) for name in losses])
            if is_due or is_last:
                note_validation(results, next(iter(scores.values())))
                named = {"train": trainer.train_split, "validation": trainer.validation_split}
                note_sizes(results, sweep.config, arguments, **named)  # again, for streams count as they are read
        loop.keep_only(selection.alive(sweep.active))
        if arguments.halving_epochs and epoch % arguments.halving_epochs == 0:
            loop.keep_only(selection.better_half(sweep.active))
        if is_due or is_last:
            save()  # first: without it, what is written next could not be gone on from
            _checkpoint(trainer, selection)
            saved = time.perf_counter()
            loop.bar.set_postfix_str(results.best_so_far)
        _tell(trainer, loop, epoch)
        tell_trackers(trainer.accelerator, epoch, losses, metrics)
    note_doubts(results)
    loop.close()


def validation_intervals(trainer: ProbeTrainer, scores: Mapping[str, Scores]) -> dict[str, list[float]]:
    """Head -> interval of its top-1 accuracy on validation, by groups where these are known."""
    groups = None
    if trainer.groups is not None and scores:
        by_name = next((one for one in scores.values() if getattr(one, "records", None) is not None), None)
        if by_name is not None:
            rows = rows_of(by_name, trainer.validation_split)
            groups = np.array([trainer.groups[row] for row in rows.tolist()])
    classes = {name: one for name, one in scores.items() if isinstance(one, ClassScores)}
    found = {name: one.intervals(groups).get("top1_interval") for name, one in classes.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def _tell(trainer: ProbeTrainer, loop: TrainingLoop, epoch: int) -> None:
    """A line per epoch, where there is no bar: in log files."""
    if loop.bar.disable and trainer.accelerator.is_main_process:
        logger.info("Epoch %d: %s", epoch, trainer.results.best_so_far)


def _agreed(verdict: bool) -> bool:
    """What the first process finds, for all: clocks differ."""
    return broadcast_object_list([verdict])[0]


def _checkpoint(trainer: ProbeTrainer, selection: EpochSelection) -> None:
    if trainer.accelerator.is_main_process:
        with settled(trainer.sweep):
            write_states(trainer.folder / CHECKPOINTS, trainer.sweep, selection, trainer.scale)
        trainer.results.save(trainer.folder / RESULTS)
    trainer.accelerator.wait_for_everyone()
