"""A recipe travels with every probe; one from elsewhere looks at nothing but itself and runs nothing by itself."""

import time

import pytest
import yaml

from attentive_probes.checks import check_parts
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.check_recipe import check_recipe


def changed(path, **data):
    content = yaml.safe_load(path.read_text())
    for key, value in data.items():
        block, _, name = key.partition("__")
        content.setdefault(block, {})[name] = value
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:SECRET}", "x ${oc.env:SECRET} y", "${ oc.env : SECRET }", "${oc.${train.x}:SECRET}",
        "\\${oc.env:SECRET}", "${oc.decode:${oc.env:SECRET}}", "${oc.env:SECRET,default}", "${oc.create:{a: 1}}",
        "${oc.dict.keys:train}",
    ],
)  # fmt: skip
def test_the_environment_is_not_read(value, recipe_file, monkeypatch, capsys):
    """Neither resolved, nor written into a recipe that would resolve it, nor shown."""
    monkeypatch.setenv("SECRET", "hidden-token")
    with pytest.raises(ValueError, match=r"recipe\.yaml: .*more than a key of the recipe") as error:
        Recipe.load(changed(recipe_file, data__name=value))
    assert "hidden-token" not in str(error.value)
    with pytest.raises(ValueError, match="on the command line"):
        Recipe.load(changed(recipe_file, data__name=None), [f"data.name={value}"])


def test_its_own_keys_are_read(recipe_file):
    """`${train.seed}` is another place of the same file."""
    recipe = Recipe.load(changed(recipe_file, train__seed=7, data__split_seed="${train.seed}"))
    assert recipe.data.split_seed == 7
    with pytest.raises(ValueError, match="nothing"):
        Recipe.load(changed(recipe_file, data__name="${nothing.there}"))


def test_code_runs_when_the_user_says_so(recipe_file):
    """Not because a file says so; what was said is written down, and must be said again."""
    path = changed(recipe_file, backbone__trust_remote_code=True)
    with pytest.raises(ValueError, match=r"asks to run code .*backbone\.trust_remote_code=true on the command line"):
        Recipe.load(path)
    recipe = Recipe.load(path, ["backbone.trust_remote_code=true"])
    assert recipe.backbone.trust_remote_code
    recipe.save(path)
    with pytest.raises(ValueError, match="asks to run code"):
        Recipe.load(path)
    assert not Recipe.load(path, ["backbone.trust_remote_code=false"]).backbone.trust_remote_code


@pytest.mark.parametrize("value", ["yes", "on", "1", "'true'", "${data.images.check}", "${train.drop_last}"])
def test_asking_in_other_words(value, recipe_file):
    """Whatever the file writes, what it comes to counts."""
    text = changed(recipe_file, train__drop_last=True).read_text()
    recipe_file.write_text(text.replace("backbone:", f"backbone:\n  trust_remote_code: {value}"))
    with pytest.raises(ValueError, match=r"asks to run code|trust_remote_code"):
        Recipe.load(recipe_file)


def test_blocks_that_are_named_once_and_used_a_billion_times(tmp_path):
    """Counted before anything is made of them."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (tmp_path / "recipe.yaml").write_text("\n".join(lines))
    begin = time.monotonic()
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        Recipe.load(tmp_path / "recipe.yaml")
    assert time.monotonic() - begin < 10


def test_how_a_run_was_started_does_not_travel(recipe_file, tmp_path):
    """Whoever repeats a run neither replaces nor resumes one of theirs without saying so."""
    Recipe.load(recipe_file, ["train.resume=true", "train.overwrite=true"]).save(tmp_path / "saved.yaml")
    saved = Recipe.load(tmp_path / "saved.yaml")
    assert not saved.train.resume and not saved.train.overwrite


BAD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "../../escape",
    "/tmp/x",
    "a\\b",
    "a\0b",
    "a\nb",
    ".hidden",
    "x" * 101,
    "a:b",
    "end.",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_are_one_part_of_a_path(name, recipe_file, tmp_path):
    """Checked with the recipe, before anything is written: of heads, and of references."""
    content = yaml.safe_load(recipe_file.read_text())
    for block in ("heads", "references"):
        other = yaml.safe_load(recipe_file.read_text())
        if block == "heads":
            other["heads"] = {name: content["heads"]["ep"]}
            other["evaluation"] = {}
        else:
            other["evaluation"] = {"references": {name: {"method": "knn"}}}
        recipe_file.write_text(yaml.safe_dump(other))
        with pytest.raises(ValueError, match="cannot be that of a folder"):
            check_recipe(Recipe.load(recipe_file))
    assert not (tmp_path / "run").exists()


def test_names_that_are_one_folder_elsewhere():
    """Systems differ in whether they tell capitals."""
    check_parts("head", ["ep-lr=0.1", "ep_2", "Größe", "8"])
    with pytest.raises(ValueError, match="'EP' and 'ep' of a head are one folder"):
        check_parts("head", ["EP", "ep"])
