"""The temperature of the selected head, fitted on the validation split when training is over."""

from __future__ import annotations

from typing import Any

import numpy as np

from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.temperature import fit_temperature
from attentive_probes.training.state.run_state import Run

TINY = 1e-30


def calibrate(run: Run) -> None:
    """Note the temperature of the selected head of a run with one label per image, unless it is known.

    One more pass over the validation split, for that head alone; a stream is not read again. Whoever changes which head
    is selected calls this afterwards.

    Args:
        run: The run, its heads at their best epochs.
    """
    split, best, sweep = run.validation_split, run.results.best, run.sweep
    is_single = sweep.config.problem.has_one_class
    if not is_single or split.num_images is None or best.temperature is not None or not best.best_epoch:
        return
    sweep.to(run.accelerator.device)
    with sweep.only({best.name}):
        loader, precision = run.loader(split, train=False), run.arguments.mixed_precision
        options: dict[str, Any] = {"precision": precision, "keep": {best.name}, "probabilities": True}
        scores = score_split(sweep, loader, run.accelerator, **options)[best.name]
    if isinstance(scores, ClassScores) and scores.records is not None and scores.are_finite:
        probabilities = scores.records.probabilities
        assert probabilities is not None
        best.temperature = fit_temperature(np.log(np.maximum(probabilities, TINY)), scores.records.labels)
