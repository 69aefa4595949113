"""A recipe: one YAML file, one run. Strict about its keys, changed on the command line by `key=value`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from attentive_probes.checks import unknown_name
from attentive_probes.experiments.blocks import BackboneRecipe, DataRecipe, LoraRecipe
from attentive_probes.experiments.evaluation_block import EvaluationRecipe, PaperRecipe, SelectionRecipe
from attentive_probes.experiments.grid import cross
from attentive_probes.files.writing import write_whole
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.sweep import HeadRun
from attentive_probes.training.arguments import ProbeTrainingArguments


def _flat(*classes: type) -> list[tuple[str, Any, Any]]:
    blocks = []
    for cls in classes:
        hints = get_type_hints(cls)
        for f in fields(cls):
            if f.default is not MISSING or f.default_factory is not MISSING:
                blocks.append((f.name, hints[f.name], field(default=f.default, default_factory=f.default_factory)))
    return blocks


LABELS, TRUST, SEPARATOR = "data.labels=", "backbone.trust_remote_code=", "data.images.label_separator"
LABEL_COLUMN = "data.images.label_column"
MAX_NODES = 10**6
OWN_KEY = re.compile(r"(?<!\\)\$\{[\w.\[\]-]+\}")

# A head in YAML is one flat block: the fields of HeadConfig beside the training settings of HeadRun.
HeadBlock = make_dataclass("HeadBlock", _flat(HeadConfig, HeadRun))
HeadBlock.__module__ = __name__  # where pickle looks for it; `make_dataclass` cannot say so before Python 3.12


@dataclass
class Recipe:
    """Everything about one run.

    Args:
        backbone: Which backbone.
        data: Which images.
        heads: Name -> head: the fields of `HeadConfig` and of `HeadRun` in one block.
        train: Training settings.
        grid: Setting -> list of values, crossed over all heads: fields of `HeadConfig` and `HeadRun`, `options.<name>`.
        evaluation: How the test split is reported.
        selection: How one head is chosen; `null` takes the best mean over seeds on the validation split.
        lora: Adapter on the backbone; `null` leaves it frozen.
        paper: What it repeats, with the published figures; nothing of it changes the run.
    """

    backbone: BackboneRecipe
    data: DataRecipe
    heads: dict[str, HeadBlock]  # type: ignore[valid-type]  # made above
    train: ProbeTrainingArguments
    grid: dict[str, list[Any]] = field(default_factory=dict)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    selection: SelectionRecipe | None = None
    lora: LoraRecipe | None = None
    paper: PaperRecipe | None = None

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a YAML file and apply overrides such as `train.num_train_epochs=2`.

        Raises:
            ValueError: If the file is missing or no YAML, a key is unknown or missing, or a value does not fit.
        """
        try:
            text = Path(path).read_text("utf-8")
        except FileNotFoundError as error:
            raise ValueError(f"There is no recipe {str(path)!r}.") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls.of_text(text, overrides, str(path))

    @classmethod
    def of_text(cls, text: str, overrides: Sequence[str] = (), path: str = "recipe") -> Recipe:
        """The recipe of a YAML text; `path` is what messages call it.

        Raises:
            ValueError: As `load`.
        """
        try:
            check_text(text, overrides, path)
            schema = OmegaConf.structured(cls)
            loaded = OmegaConf.create(text)
            changes = as_typed([text for text in overrides if not text.startswith(LABELS)])
            if (labels := labels_as_written(text, overrides)) is not None:
                OmegaConf.update(loaded, "data.labels", labels)
            merged = OmegaConf.merge(schema, loaded, OmegaConf.from_dotlist(changes))
            return _trusted(_typed(merged), path, overrides)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no valid YAML: {error}") from error
        except ConfigKeyError as error:
            raise ValueError(_unknown_key(error, path)) from error
        except OmegaConfBaseException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ValueError(f"{path}: {error.full_key or 'recipe'}: {reason}") from error
        except ValueError as error:
            raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        except (TypeError, AttributeError, KeyError, RecursionError, AssertionError, IndexError) as error:
            raise ValueError(
                f"{path} cannot be read as a recipe: {type(error).__name__}: {str(error)[:300]}"
            ) from error

    def head_runs(self) -> dict[str, HeadRun]:
        """Name -> head and its training settings, crossed with the grid.

        Raises:
            ValueError: If a head or the grid is malformed; the text names it.
        """
        runs = {}
        for name, block in self.heads.items():
            values = {f.name: getattr(block, f.name) for f in fields(block)}
            head_keys = {f.name for f in fields(HeadConfig)}
            try:
                head = HeadConfig(**{key: value for key, value in values.items() if key in head_keys})
            except ValueError as error:
                raise ValueError(f"Head {name!r}: {error}") from error
            runs[name] = HeadRun(head, **{key: value for key, value in values.items() if key not in head_keys})
        crossed = cross(runs, self.grid)
        return {
            name: replace(run, seed=self.train.seed if run.seed is None else run.seed) for name, run in crossed.items()
        }

    def save(self, path: str | Path) -> None:
        """Write the recipe with all overrides applied, as YAML; how it was started is no part of it."""
        plain = replace(self, train=replace(self.train, resume=False, overwrite=False))
        write_whole(path, OmegaConf.to_yaml(OmegaConf.structured(plain)))


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Changes of the command line in which texts are what was typed: YAML takes a separator `|` for something else.

    A list of label columns, `[sun,sea]`, is the same as `sun,sea`.
    """
    texts = []
    for change in overrides:
        key, _, value = change.partition("=")
        if key == LABEL_COLUMN and value.startswith("[") and value.endswith("]"):
            change = f"{key}='{','.join(name.strip() for name in value[1:-1].split(','))}'"
        elif key == SEPARATOR and value not in ("", "null") and not value.startswith(("'", '"')):
            change = f"{key}='{value}'"
        texts.append(change)
    return texts


def check_text(text: str, overrides: Sequence[str], path: str) -> None:
    """Check that the text of a recipe, perhaps untrusted, looks up nothing but its own keys.

    Raises:
        ValueError: If it asks for anything else.
    """
    for place, content in (("", text), *((" (on the command line)", override) for override in overrides)):
        if "${" in OWN_KEY.sub("", content):
            found = content[content.index("${", 0) :].partition("\n")[0][:60]
            raise ValueError(f"{path}{place}: {found!r} is more than a key of the recipe, such as ${{train.seed}}.")
    loaded = yaml.safe_load(text)
    if sum(1 for _ in islice(_nodes(loaded), MAX_NODES)) == MAX_NODES:
        raise ValueError(f"{path} holds more than {MAX_NODES:,} values, counted with all repetitions.")


def _trusted(recipe: Recipe, path: str | Path, overrides: Sequence[str]) -> Recipe:
    """A recipe that runs code only if the command line says so.

    The check applies to the merged value, of file and overrides.
    """
    if recipe.backbone.trust_remote_code and not any(override.startswith(TRUST) for override in overrides):
        raise ValueError(
            f"{path} asks to run code from the repository of {recipe.backbone.name!r}; read that code, and say "
            f"{TRUST}true on the command line if you trust it."
        )
    return recipe


def _nodes(tree: Any) -> Iterator[Any]:
    """Every value in nested ones, as often as it is repeated: YAML can name a block once and use it a billion times."""
    yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(value)


def _typed(merged: Any) -> Recipe:
    """The recipe as objects."""
    _check_blocks(merged, "")
    return OmegaConf.to_object(merged)  # type: ignore[return-value]  # an instance of the schema


def _check_blocks(node: DictConfig, path: str) -> None:
    """Build the blocks of a recipe from the inside out, so that an error names its key as it is typed."""
    for key in node:
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            _check_blocks(node[key], f"{path}{key!s}.")
    try:
        OmegaConf.to_object(node)
    except ValueError as error:
        is_of_key = re.match(r"[a-z_0-9]+ is ", str(error))
        raise ValueError(f"{path}{error}" if is_of_key else str(error)) from error


def labels_as_written(text: str, overrides: Sequence[str]) -> list[str] | None:
    """The names in `data.labels` letter by letter: `no` and `001` are names, though YAML has other values for them."""
    content = yaml.load(text, yaml.BaseLoader) or {}
    data = content.get("data") if isinstance(content, dict) else None
    labels = data.get("labels") if isinstance(data, dict) else None
    for override in overrides:
        if override.startswith(LABELS):
            labels = yaml.load(override.removeprefix(LABELS), yaml.BaseLoader)
    return labels if isinstance(labels, list) else None


def _unknown_key(error: ConfigKeyError, path: str | Path) -> str:
    node = error.parent_node
    valid = list(node) if isinstance(node, DictConfig) else [f.name for f in fields(Recipe)]
    section, _, key = str(error.full_key).rpartition(".")
    return f"{path}: {unknown_name(f'key in {section!r}:' if section else 'key', key, valid)}"
