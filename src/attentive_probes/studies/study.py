"""A study: a recipe, and what varies in it. Every combination is a run of its own; all of them share token caches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from attentive_probes.checks import check_parts, unknown_name
from attentive_probes.experiments.recipe import Recipe, check_text
from attentive_probes.poolings import find_pooling
from attentive_probes.studies.records import COLUMNS

KEYS = ("recipe", "vary", "taps", "skip", "baseline", "output_dir", "workers")
EACH = "@*"  # at the place of a tap: the head is repeated for each of `taps`


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Args:
        values: Axis -> entry.
        recipe: What is run.
        number: Which of the runs of this combination it is: heads with an adapter run alone.
    """

    values: Mapping[str, str]
    recipe: Recipe
    number: int = 0

    @property
    def name(self) -> str:
        """Its name, also that of its folder."""
        parts = [re.sub(r"[^\w.+-]+", "_", value) for value in self.values.values()]
        return "-".join([*parts, *([f"{self.number:03d}"] if self.recipe.lora is not None else [])])


@dataclass
class Study:
    """A recipe and its axes.

    Args:
        recipe: What all runs share: the keys of a recipe; heads, reading `patches@*`, are repeated for each of `taps`.
        vary: Axis -> entry -> changes to the recipe, key by key as on the command line: `backbone.name`, `data.shots`,
            or a whole block such as `heads`. The first entry of an axis is its plain one.
        taps: Taps that stand for the star.
        skip: Combinations that are left out, each by some of its axes and entries.
        baseline: Head that the others are compared with in each run.
        output_dir: Folder of the study.
        workers: Options of `submitit` where runs are jobs, with `cluster` (`slurm` or `local`); empty to run here.
    """

    recipe: dict[str, Any]
    vary: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)
    taps: list[str] = field(default_factory=list)
    skip: list[dict[str, str | list[str]]] = field(default_factory=list)
    baseline: str | None = None
    output_dir: str = "outputs/study"
    workers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Study:
        """Read a YAML file; overrides such as `recipe.train.num_train_epochs=2` or `output_dir=...` change it.

        Raises:
            ValueError: If the file is missing or no study; the text says what is wrong.
        """
        try:
            text = Path(path).read_text("utf-8")
            check_text(text, overrides, str(path))
            loaded = OmegaConf.merge(OmegaConf.create(text), OmegaConf.from_dotlist(list(overrides)))
        except FileNotFoundError as error:
            raise ValueError(f"There is no study {str(path)!r}.") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{path} is no valid study: {error}") from error
        content = OmegaConf.to_container(loaded)
        if not isinstance(content, dict) or "recipe" not in content:
            raise ValueError(f"{path} is no study: it needs the keys of a recipe under `recipe`.")
        for key in content:
            if key not in KEYS:
                raise ValueError(f"{path}: {unknown_name('key', str(key), KEYS)}")
        study = cls(**{str(key): value for key, value in content.items()})
        study.cells()
        return study

    def cells(self) -> list[StudyRun]:
        """Every run, checked as far as its recipe alone can tell.

        Raises:
            ValueError: If an entry does not fit; the text names the combination.
        """
        found = []
        for axis, entries in self.vary.items():
            if axis in COLUMNS:
                raise ValueError(f"The axis {axis!r} has the name of a column of results; rename it, say to {axis}s.")
            if not isinstance(entries, dict) or not entries:
                raise ValueError(f"vary.{axis} is {entries!r}; it must map the name of each entry to its changes.")
        for combination in itertools.product(*(map(str, entries) for entries in self.vary.values())):
            values = dict(zip(self.vary, combination, strict=True))
            if not self._is_skipped(values):
                found += self._runs(values)
        if not found:
            raise ValueError("The study has no run: every combination is skipped.")
        names = [cell.name for cell in found]
        if len(set(names)) < len(names):
            raise ValueError("Two runs of the study have the same name; rename entries that differ by signs alone.")
        return found

    def _is_skipped(self, values: Mapping[str, str]) -> bool:
        for one in self.skip:
            for axis in one:
                if axis not in values:
                    raise ValueError(unknown_name("axis in skip:", axis, self.vary))
            wanted = {axis: entry if isinstance(entry, list) else [entry] for axis, entry in one.items()}
            if all(values[axis] in map(str, entries) for axis, entries in wanted.items()):
                return True
        return False

    def _runs(self, values: Mapping[str, str]) -> list[StudyRun]:
        content = OmegaConf.create(self.recipe)
        try:
            for axis, entry in values.items():
                by_text = {str(name): changes for name, changes in self.vary[axis].items()}
                for key, value in (by_text[entry] or {}).items():
                    OmegaConf.update(content, str(key), value, merge=False, force_add=True)
            plain = OmegaConf.to_container(content)
            assert isinstance(plain, dict)
            plain["heads"] = self._heads(plain.get("heads") or {})
            plain.setdefault("train", {})["output_dir"] = self.output_dir
            plain["evaluation"] = {"report": False, **(plain.get("evaluation") or {})}
            recipe = Recipe.of_text(OmegaConf.to_yaml(OmegaConf.create(plain)), (), "study")
            parts = apart(recipe)
            cells = [StudyRun(values, part, number) for number, part in enumerate(parts)]
            for cell in cells:
                runs = cell.recipe.head_runs()
                check_parts("head", runs)
                for run in runs.values():
                    find_pooling(run.head.pooling)
        except ValueError as error:
            raise ValueError(f"The run {dict(values)}: {error}") from error
        folder = Path(self.output_dir)
        return [replace(cell, recipe=_placed(cell.recipe, folder / "runs" / cell.name, folder)) for cell in cells]

    def _heads(self, heads: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, block in heads.items():
            tokens = list((block or {}).get("tokens", ["patches"]))
            is_starred = any(str(item).endswith(EACH) for item in tokens)
            if is_starred and not self.taps:
                raise ValueError(f"The head {name!r} reads {tokens}, but `taps` is empty.")
            for tap in self.taps if is_starred else [None]:
                own = tokens if tap is None else [str(item).replace(EACH, f"@{tap}") for item in tokens]
                found[str(name) if tap is None else f"{name}@{tap.replace(':', '')}"] = {**(block or {}), "tokens": own}
        return found


def apart(recipe: Recipe) -> list[Recipe]:
    """The recipe itself; or, as an adapter is trained with one head, a recipe for each head of its grid."""
    if recipe.lora is None:
        return [recipe]
    text = OmegaConf.to_yaml(OmegaConf.structured(recipe))
    found = []
    for run in recipe.head_runs().values():
        content: Any = OmegaConf.create(text)
        rates = ("learning_rate", "query_learning_rate", "weight_decay")
        block = {**run.head.to_dict(), **{key: getattr(run, key) for key in rates}}
        family = run.family or next(iter(recipe.heads))
        content.heads = {family: {**block, "seed": run.seed}}
        content.grid, content.train.seed = {}, run.seed
        found.append(Recipe.of_text(OmegaConf.to_yaml(content), (), "study"))
    return found


def _placed(recipe: Recipe, folder: Path, study: Path) -> Recipe:
    """The recipe with a folder of its own, and the token caches of the study."""
    cache = replace(recipe.data.cache, folder=str(study / "tokens"))
    return replace(recipe, data=replace(recipe.data, cache=cache), train=replace(recipe.train, output_dir=str(folder)))
