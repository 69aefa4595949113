"""Refit: train once more on training and validation images together, once there is nothing left to choose."""

from __future__ import annotations

import logging

import numpy as np

from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.runs.run_files import REFIT, probe_folder
from attentive_probes.files.checksums import load_checked, save_checked
from attentive_probes.training.fit import fit_heads, fresh
from attentive_probes.training.state.checkpoint import replace_whole
from attentive_probes.training.trainer import ProbeTrainer

logger = logging.getLogger(__name__)


def refit(trainer: ProbeTrainer, pool: TokenCache) -> int:
    """Retrain all heads of a run on training and validation images for the full schedule, and replace the present ones.

    A resumed run takes up heads that were refitted before. Validation metrics remain those from before the refit.

    Args:
        trainer: The run, trained and not tested.
        pool: Tokens of training and validation images.

    Returns:
        The number of images they learned from.
    """
    path, sweep = trainer.folder / REFIT, trainer.sweep
    if path.exists():
        states = load_checked(path)
    else:
        states = fit_heads(
            fresh(sweep), trainer.arguments, pool, np.arange(len(pool)), None, trainer.accelerator
        ).states
        if trainer.accelerator.is_main_process:
            save_checked(states, path)
    if left := sorted(sweep.runs.keys() - states.keys()):
        logger.warning("%s diverged when they were trained on all images: they stay as they were before.", left)
    for name, state in states.items():
        sweep.restore(name, state)
        if trainer.accelerator.is_main_process:
            replace_whole(trainer.probe(name), probe_folder(trainer.folder, name))
    return len(pool)
