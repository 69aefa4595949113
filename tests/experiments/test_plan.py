"""Dry runs: every recipe is resolved without a network, beside the figures of its paper."""

import socket

import pytest

from attentive_probes.cli.main import commands
from attentive_probes.experiments.plan import plan_recipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.shipped import find_recipe, find_study, shipped_recipes
from attentive_probes.studies.study import Study
from tiers import mostly_slow

RECIPES = shipped_recipes()
OF_PAPERS = [name for name in RECIPES if "/" in name]


@pytest.fixture
def no_network(monkeypatch):
    """Whoever opens a connection fails."""

    def refuse(*arguments, **options):
        raise AssertionError("a dry run opened a connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", mostly_slow(RECIPES, [0, 1, 5, 9]))
def test_every_recipe_dry_runs(name, no_network):
    """Heads and costs are known without a download; what a paper publishes is about heads that there are."""
    recipe = Recipe.load(RECIPES[name], [] if "/" in name else ["data.num_labels=10"])
    plan = plan_recipe(recipe)
    heads = {head.name: head for head in plan.heads}
    assert all(head.parameters > 0 and head.multiply_adds > 0 for head in plan.heads)
    assert plan.num_labels > 1 and plan.backbone_parameters > 10**6
    if recipe.paper is not None:
        named = {*recipe.paper.published, *recipe.paper.second_hand, *recipe.paper.parameters}
        assert named <= set(heads) and set(recipe.paper.second_hand) <= set(recipe.paper.published)
        assert {heads[head].parameters for head in recipe.paper.parameters} == set(recipe.paper.parameters.values())


def test_the_command_line_knows_every_name(no_network, capsys, monkeypatch):
    """Every name that `list recipes` prints is a recipe; `train <name> --dry-run` plans it off the network."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert {name: find_recipe(name) for name in RECIPES} == RECIPES
    for name in ("quickstart", f"{OF_PAPERS[0]}.yaml"):
        changes = [] if "/" in name else ["data.num_labels=10"]
        commands(["train", name, *changes, "--dry-run"], standalone_mode=False)
        assert "plan" in capsys.readouterr().out, name


@pytest.mark.parametrize("name", OF_PAPERS)
def test_recipes_of_papers_name_their_source(name):
    """A link, what it is, how to launch it, and changes to the paper's own protocol that are valid."""
    text = RECIPES[name].read_text()
    recipe = Recipe.load(RECIPES[name])
    assert recipe.paper.link.startswith("https://arxiv.org/abs/") and text.startswith("# ") and "# Launch: " in text
    if recipe.paper.theirs:
        theirs = Recipe.load(RECIPES[name], recipe.paper.theirs)
        assert theirs.data.validation_split == theirs.data.test_split and theirs.data.allow_selection_on_test


def test_figures_that_are_known():
    """The plan of MAE on ImageNet: parameters and steps of the paper, published figures and which are second-hand."""
    plan = plan_recipe(Recipe.load(find_recipe("ep/mae-base_imagenet")))
    heads = {head.name: head for head in plan.heads}
    assert heads["ep32"].parameters == 1_383_400 and heads["ep48-d8"].parameters == 207_592
    assert (heads["ep32"].published, heads["ep32"].is_second_hand) == (75.46, False) and heads["ep12"].is_second_hand
    train = round(0.99 * 1_281_167)
    assert plan.steps == 90 * (train // 4096)
    assert plan.images == {"train": train, "validation": 1_281_167 - train, "test": 50_000}


def test_what_cannot_be_known_is_said(tmp_path):
    """Without a number of classes, or a shape of the backbone, a dry run is an error with the way out."""
    with pytest.raises(ValueError, match="set data.num_labels for a dry run"):
        plan_recipe(Recipe.load(RECIPES["quickstart"], ["data.dataset=some/set"]))
    with pytest.raises(ValueError, match="some/model"):
        plan_recipe(Recipe.load(RECIPES["quickstart"], ["data.num_labels=3", "backbone.name=some/model"]))


def test_shipped_studies_are_valid():
    """Every study of the package is found by its name, and each of its runs is a recipe."""
    for path in sorted((RECIPES["quickstart"].parent / "study").glob("*.yaml")):
        assert find_study(path.stem) == path and Study.load(path).vary  # loading checks every run
