"""What an adapter on the backbone would add to a head: both trained on the same images, compared on the same others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from attentive_probes.choosing.rounds import Trial, share_of
from attentive_probes.evaluation.split_scores import rows_of, score_split
from attentive_probes.experiments.blocks import LoraRecipe
from attentive_probes.experiments.evaluation_block import EvaluationRecipe
from attentive_probes.experiments.recipe import HeadBlock, Recipe
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.statistics import compare_shares, num_draws
from attentive_probes.training.trainer import ProbeTrainer

MAX_IMAGES, EPOCHS = 1000, 10  # each of which runs the backbone forward and backward
HELD = 0.3  # of the images, which judge


def adapter_gain(recipe: Recipe, name: str, winner: Trial) -> str:
    """Train the chosen head with LoRA and without, online, and say how they compare on held images, in a sentence.

    Both are kept at their last epoch, which these images did not choose; the test split stays out.

    Args:
        recipe: What `automatic_recipe` made for the backbone.
        name: Name of the chosen candidate.
        winner: The backbone with its heads.

    Raises:
        ValueError: If the backbone takes no adapter.
    """
    assert winner.sweep is not None
    run = winner.sweep.runs.get(name) or next(iter(winner.sweep.runs.values()))
    rates = {"learning_rate": run.learning_rate, "query_learning_rate": run.query_learning_rate}
    data = replace(recipe.data, tokens="online", validation_split=None, validation_fraction=HELD)
    data = replace(data, fraction=share_of(data, MAX_IMAGES))
    folder, epochs = Path(recipe.train.output_dir).parent, recipe.train.num_train_epochs or EPOCHS
    correct, groups, count = [], None, 0
    for lora in (None, LoraRecipe()):
        train = replace(recipe.train, num_train_epochs=epochs, overwrite=True, select_epoch=False)
        one = Recipe(
            recipe.backbone,
            data,
            {"head": HeadBlock(**run.head.to_dict(), **rates)},
            replace(train, output_dir=str(folder / ("adapter" if lora else "no-adapter"))),
            evaluation=EvaluationRecipe(),
            lora=lora,
        )
        sweep, raw, opened = prepare(one)
        trainer = ProbeTrainer(sweep, one.train, opened["train"], opened["validation"], images=data.images)
        trainer.train()
        loader = trainer.run.loader(trainer.run.validation_split, train=False)
        scores = score_split(sweep, loader, trainer.accelerator, keep=["head"])["head"]
        assert isinstance(scores, ClassScores)
        correct.append(scores.correct)
        groups = raw.parts["validation"].groups_at(rows_of(scores, trainer.run.validation_split))
        count = trainer.results.data["train"]["images"]
    return _sentence(correct[0], correct[1], groups, epochs, count)


def _sentence(plain: np.ndarray, adapted: np.ndarray, groups: np.ndarray | None, epochs: int, count: int) -> str:
    """How two heads compare on the same images, which chose nothing of them."""
    found = compare_shares(adapted, plain, groups)
    judges = f"{len(plain):,} images" + (f" in {num_draws(len(plain), groups)} groups" if groups is not None else "")
    sure = "" if found is None else f" {100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}],"
    return (
        f"An adapter (LoRA, r = 8, {epochs} epochs on {count:,} images):{sure} {100 * adapted.mean():.1f} after "
        f"{100 * plain.mean():.1f} without, on {judges} that neither learned from."
    )
