from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from attentive_probes import HeadConfig, HeadRun
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.check_recipe import check_recipe

RECIPES = sorted(Path("recipes").glob("*.yaml"))
LAUNCHES = sorted(Path("recipes/accelerate").glob("*.yaml"))
MINIMAL = """
backbone: {name: embedded:mae-tiny-fashion}
data: {dataset: embedded:fashion-mnist}
heads:
  ep8: {pooling: ep, options: {num_queries: 8}, learning_rate: 1e-2}
  ep8-lr0.1: {pooling: ep, options: {num_queries: 8}, tokens: [cls, patches@prenorm]}
train: {output_dir: outputs/run}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


def test_blocks_become_typed(minimal):
    """A head block holds the fields of HeadConfig and of HeadRun; everything else has its default."""
    recipe = Recipe.load(minimal)
    assert recipe.head_runs() == {
        "ep8": HeadRun(HeadConfig("ep", {"num_queries": 8}), learning_rate=0.01, seed=0),
        "ep8-lr0.1": HeadRun(HeadConfig("ep", {"num_queries": 8}, tokens=("cls", "patches@prenorm")), seed=0),
    }
    assert recipe.data.augmentation.crop
    assert recipe.data.validation_split is None


def test_overrides_win_and_survive_saving(minimal, tmp_path):
    """`key=value` changes any value, with its type; a saved recipe loads as the same recipe."""
    overrides = ["train.num_train_epochs=2", "heads.ep8.options.num_queries=16", "data.augmentation=null"]
    recipe = Recipe.load(minimal, overrides)
    assert recipe.train.num_train_epochs == 2
    assert recipe.heads["ep8"].options == {"num_queries": 16}
    assert recipe.data.augmentation is None
    recipe.save(tmp_path / "saved.yaml")
    assert Recipe.load(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.seed=1", "Unknown key 'trian'. Did you mean 'train'"),
        ("train.sed=1", "Unknown key in 'train': 'sed'. Did you mean 'seed'"),
        ("data.images.unreadble=skip", "Did you mean 'unreadable'"),
        ("heads.ep8.poling=mean", r"Unknown key in 'heads\.ep8': 'poling'. Did you mean 'pooling'"),
        ("train.batch_size=many", r"train\.batch_size: .*'many'"),
        ("data.augmentation.crop_scale=[2,3]", "crop cannot cover more than the image"),
        ("heads.ep8.dropout=2", "Head 'ep8': dropout is 2"),
        ("train.optimizer=adam", "Did you mean 'adamw'"),
    ],
)
def test_mistakes_are_named(override, message, minimal):
    """Unknown keys name the nearest valid one, wrong values their key."""
    with pytest.raises(ValueError, match=message):
        Recipe.load(minimal, [override]).head_runs()


def test_broken_files_are_named(tmp_path, minimal):
    """A missing file, broken YAML and a missing section."""
    with pytest.raises(ValueError, match=r"no recipe .*nothing\.yaml"):
        Recipe.load(tmp_path / "nothing.yaml")
    minimal.write_text("backbone: {name: [")
    with pytest.raises(ValueError, match="no valid YAML"):
        Recipe.load(minimal)
    minimal.write_text("backbone: {name: embedded:mae-tiny-fashion}")
    with pytest.raises(ValueError, match="data"):
        Recipe.load(minimal)


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_shipped_recipes_are_valid(path, tmp_path):
    """Every recipe that needs no download loads, and its heads fit its backbone; those of papers dry-run elsewhere."""
    assert check_recipe(Recipe.load(path, [f"train.output_dir={tmp_path / 'run'}"]))


@pytest.mark.parametrize("path", LAUNCHES, ids=str)
def test_launch_files_are_valid(path):
    """Accelerate reads every launch file."""
    assert load_config_from_file(str(path)).num_processes >= 1
    assert len(LAUNCHES) == 3
