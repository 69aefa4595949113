"""What an adapter on the backbone would add to a head: both trained on the same images, compared on the same others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from attentive_probes.evaluation.statistics import proportion_interval
from attentive_probes.experiments.blocks import LoraRecipe
from attentive_probes.experiments.judging import EvaluationRecipe
from attentive_probes.experiments.recipe import HeadBlock, Recipe
from attentive_probes.experiments.rounds import Judged, share_of
from attentive_probes.experiments.run import run_recipe

MOST_IMAGES, EPOCHS = 1000, 10  # each of which runs the backbone forward and backward


def adapter_gain(recipe: Recipe, name: str, winner: Judged) -> str:
    """Train the chosen head with LoRA and without, online, and say how they compare on validation, in a sentence.

    Args:
        recipe: What `automatic_recipe` made for the backbone.
        name: Name of the chosen candidate.
        winner: The backbone with its heads.

    Raises:
        ImportError: If PEFT is missing.
        ValueError: If the backbone takes no adapter.
    """
    assert winner.sweep is not None
    run = winner.sweep.runs.get(name) or next(iter(winner.sweep.runs.values()))
    data = replace(recipe.data, tokens="online", validation_fraction=0.3)
    data = replace(data, fraction=share_of(data, MOST_IMAGES), test_split=None, test_fraction=None)
    folder = Path(recipe.train.output_dir).parent
    accuracies, count, epochs = {}, 0, recipe.train.num_train_epochs or EPOCHS
    for lora in (None, LoraRecipe()):
        output = str(folder / ("adapter" if lora else "no-adapter"))
        one = Recipe(
            recipe.backbone,
            data,
            {"head": HeadBlock(**run.head.to_dict(), learning_rate=run.learning_rate)},
            replace(recipe.train, output_dir=output, num_train_epochs=epochs, overwrite=True),
            evaluation=EvaluationRecipe(),
            lora=lora,
        )
        results = run_recipe(one)
        accuracies[lora is not None], count = results.best.validation["top1"], results.data["validation"]["images"]
    low, high = proportion_interval(round(accuracies[True] / 100 * count), count)
    return (
        f"An adapter (LoRA, r = 8, {epochs} epochs on {results.data['train']['images']:,} images): validation "
        f"{accuracies[True]:.1f} [{100 * low:.1f}, {100 * high:.1f}] after {accuracies[False]:.1f} without."
    )
