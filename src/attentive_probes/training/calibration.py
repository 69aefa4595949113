"""The temperature of the selected head, fitted on the validation split when training is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attentive_probes.data.image_stream import ImageStream
from attentive_probes.evaluation.class_scores import ClassScores
from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.evaluation.temperature import fit_temperature

if TYPE_CHECKING:
    from attentive_probes.training.trainer import ProbeTrainer

TINY = 1e-30


def calibrate(trainer: ProbeTrainer) -> None:
    """Note the temperature of the selected head of a run with one label per image, unless it is known.

    One more pass over the validation split, for that head alone; a stream is not read again. Whoever changes which head
    is selected calls this afterwards.

    Args:
        trainer: The run, its heads at their best epochs.
    """
    split, best, sweep = trainer.validation_split, trainer.results.best, trainer.sweep
    is_single = sweep.config.problem_type == "single_label_classification"
    if not is_single or isinstance(split, ImageStream) or best.temperature is not None or not best.best_epoch:
        return
    sweep.to(trainer.accelerator.device)
    with sweep.only({best.name}):
        loader, precision = trainer.loader(split, train=False), trainer.arguments.mixed_precision
        options: dict[str, Any] = {"precision": precision, "keep": {best.name}, "probabilities": True}
        scores = score_split(sweep, loader, trainer.accelerator, **options)[best.name]
    if isinstance(scores, ClassScores) and scores.records is not None and scores.are_finite:
        probabilities = scores.records.probabilities
        assert probabilities is not None
        best.temperature = fit_temperature(np.log(np.maximum(probabilities, TINY)), scores.records.labels)
