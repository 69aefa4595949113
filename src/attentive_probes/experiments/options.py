"""What is typed after `train`: a recipe, its name, or data and a few wishes; how much of it fits into the time."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attentive_probes.experiments.automatic import AutoOptions, automatic_recipe, is_data
from attentive_probes.experiments.recipe import Recipe, as_typed
from attentive_probes.experiments.run import profile_recipe
from attentive_probes.experiments.shipped import find_recipe, is_shipped
from attentive_probes.experiments.steps.draw_splits import load_named_of
from attentive_probes.machine.processes import process_state
from attentive_probes.training.profile import Profile
from attentive_probes.training.steps.step_count import steps_of

logger = logging.getLogger(__name__)
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
MARGIN = 0.8  # of the time, for what no profile sees: pictures, references, the report


def find_run(name: str, options: AutoOptions, overrides: Sequence[str], time: str | None = None) -> Recipe:
    """The recipe that is meant: a file, one of the package, or one that is made for some data.

    Args:
        name: What was typed: data, a YAML file, or the name of a recipe of the package.
        options: What is asked for beside data.
        overrides: Changes to the recipe, for instance `train.num_train_epochs=2`.
        time: How long a run on data may take, for instance `90s`, `10m` or `2h`; `None` for as long as it takes.

    Raises:
        ValueError: If there is no such thing, it cannot be read, or a wish is about data and it is a recipe.
    """
    seconds = None if time is None else seconds_of(time)
    if is_shipped(name) or not is_data(name):
        given = [f.name for f in fields(AutoOptions) if getattr(options, f.name) != f.default]
        if given := [*given, *(["time"] if time else [])]:
            flags = ", ".join(f"--{key.replace('output_dir', 'output').replace('_', '-')}" for key in given)
            raise ValueError(f"{flags}: for data alone; {name!r} is a recipe, which has keys for that.")
        return Recipe.load(find_recipe(name), overrides)
    asked = data_keys(overrides)  # what the data are read with, to see what they are
    recipe = Recipe.of_text(automatic_recipe(name, options, asked), overrides, f"the recipe for {name}")
    return recipe if seconds is None else within(recipe, seconds)


def recipe_text(source: str, options: AutoOptions, overrides: Sequence[str]) -> str:
    """The text of the recipe for some data, with changes to it.

    Raises:
        ValueError: If the data cannot be read, or a change does not fit.
    """
    text = automatic_recipe(source, options, data_keys(overrides))
    if not overrides:
        return text
    Recipe.of_text(text, overrides, f"the recipe for {source}")
    changed = OmegaConf.merge(OmegaConf.create(text), OmegaConf.from_dotlist(as_typed(overrides)))
    return yaml.safe_dump(OmegaConf.to_container(changed), sort_keys=False, width=110, default_flow_style=None)


def data_keys(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys of the data block that changes on the command line set.

    Raises:
        ValueError: If one of them cannot be read.
    """
    changes = [change for change in overrides if change.startswith("data.") and "=" in change]
    try:
        found = OmegaConf.to_container(OmegaConf.from_dotlist(as_typed(changes)))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"The changes {', '.join(changes)} cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(found, dict)
    return dict(found.get("data") or {})


def seconds_of(text: str) -> float:
    """A length of time, such as `90s`, `10m`, `1.5h` or `600`, in seconds.

    Raises:
        ValueError: If the text is not a duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"--time is {text!r}; write for instance 90s, 10m or 2h.")
    return float(found[1]) * UNITS[found[2]]


def within(recipe: Recipe, seconds: float) -> Recipe:
    """The recipe with as much of seeds, folds, rates and images left as a profile says will fit into the time.

    Raises:
        ValueError: As `run_recipe`; also among several processes, whose clocks would not agree on what fits.
    """
    if process_state().num_processes > 1:
        raise ValueError("--time is for one process: several would each make a recipe of their own. Leave it out.")
    num_images = len(load_named_of(recipe.data, [recipe.data.train_split])[recipe.data.train_split])
    found = profile_recipe(recipe)
    for smaller in _smaller(recipe):
        expected = expected_seconds(smaller, found, num_images, len(recipe.head_runs()))
        if expected <= MARGIN * seconds:
            break
    fraction = min(1.0, MARGIN * seconds / expected)
    if fraction < 1:
        smaller = replace(smaller, data=replace(smaller.data, fraction=round(fraction, 3)))
    left = [f"{what}: {old} -> {new}" for what, old, new in _differences(recipe, smaller) if old != new]
    logger.info("About %.0f s of %.0f s%s.", min(expected, MARGIN * seconds), seconds,
                f", with less of what would take longer ({'; '.join(left)})" if left else "")  # fmt: skip
    return smaller


def expected_seconds(recipe: Recipe, profile: Profile, num_images: int, num_heads: int) -> float:
    """About how long a run takes: one pass of the backbone, and the heads over all epochs and folds.

    Args:
        recipe: The run.
        profile: Images per second of every stage, of `num_heads` heads.
        num_images: Images to train on, of which parts are held out.
        num_heads: Number of heads of the profile.
    """
    folds = recipe.selection.folds if recipe.selection is not None else 0
    data = recipe.data
    pool = int(num_images * (1 - (data.test_fraction or 0)))
    train = int(pool * (1 - (data.validation_fraction if data.validation_split is None else 0)))
    seen = steps_of(recipe.train, max(1, train)).images * (0.3 if folds else 1)  # what is left of a choice is a part
    if folds:
        seen += folds * steps_of(recipe.train, max(1, pool * (folds - 1) // folds)).images
    share = len(recipe.head_runs()) / num_heads
    once = num_images * (1 / profile.decode + 1 / profile.process + 1 / profile.backbone)
    return once + seen * share / profile.heads


def _smaller(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe, then with one seed, three folds, none, and a single rate."""
    yield recipe
    for seeds, folds, rates in ((1, 5, 3), (1, 3, 3), (1, 0, 3), (1, 0, 1)):
        grid = dict(recipe.grid)
        grid["seed"] = list(grid.get("seed", [0]))[:seeds]
        grid["learning_rate"] = ["auto"] if rates == 1 else grid.get("learning_rate", ["auto"])
        selection = recipe.selection
        if selection is not None:
            folds = min(folds, selection.folds)
            selection = replace(selection, folds=folds, refit=selection.refit and folds > 0)
        yield replace(recipe, grid=grid, selection=selection)


def _differences(recipe: Recipe, smaller: Recipe) -> Iterator[tuple[str, object, object]]:
    for key in ("seed", "learning_rate"):
        yield f"grid.{key}", recipe.grid.get(key), smaller.grid.get(key)
    old, new = (one.folds if one is not None else 0 for one in (recipe.selection, smaller.selection))
    yield "selection.folds", old, new
    yield "data.fraction", recipe.data.fraction, smaller.data.fraction
