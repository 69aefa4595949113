"""A test split that is held out of train, by class and by group, and what is written of it."""

import csv

import numpy as np
import pytest
import yaml

from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.draw_splits import load_splits
from tiny import image_dataset


@pytest.fixture
def one_split(recipe_file, tmp_path):
    """The small recipe over a data set with a training split alone: 60 images in twelve scenes of five."""
    folder = tmp_path / "one"
    folder.mkdir()
    data = image_dataset(60).add_column("scene", [f"scene {i % 12}" for i in range(60)])
    data.to_parquet(folder / "train.parquet")
    content = yaml.safe_load(recipe_file.read_text())
    content["data"] |= {"dataset": str(folder), "validation_split": None, "test_split": None, "test_fraction": 0.25}
    content["data"]["validation_fraction"] = 0.25
    content["train"]["num_train_epochs"] = 1
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def rows_of(path):
    return list(csv.DictReader((path / "splits.csv").read_text().splitlines()))


@pytest.mark.parametrize("tokens", [[], ["data.tokens=cached", "data.augmentation=null"]])
def test_a_run_holds_its_test_split_out(one_split, tmp_path, tokens):
    """Every image is in one of three splits, each class in all; the file says which, as do the predictions."""
    changes = [*tokens, f"data.cache.folder={tmp_path / 'tokens'}"]
    results = run_recipe(Recipe.load(one_split, changes))
    rows = rows_of(tmp_path / "run")
    assert sorted(int(row["row"]) for row in rows) == list(range(60))
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "validation", "test")}
    assert counts == {"train": 33, "validation": 12, "test": 15}
    assert all(
        {row["label"] for row in rows if row["split"] == name} == {"band 0", "band 1", "band 2"} for name in counts
    )
    assert results.data["test"]["images"] == 15 and results.dataset["test_split"] == "0.25 of train"
    assert {head.test["top1"] >= 0 for head in results.heads} == {True}
    tested = {int(row["row"]) for row in rows if row["split"] == "test"}
    import pyarrow.parquet as pq

    assert set(pq.read_table(tmp_path / "run" / "predictions.parquet")["row"].to_pylist()) == tested


def test_scenes_are_in_one_split(one_split):
    """With a column of groups no group is in two splits; a named split that shares one is refused."""
    raw = load_splits(Recipe.load(one_split, ["data.group_column=scene"]).data)
    groups = {name: set(part.groups) for name, part in raw.parts.items()}
    assert all(groups.values()) and sum(map(len, groups.values())) == 12
    with pytest.raises(ValueError, match="is in the train split and in the validation split"):
        image_dataset(3).add_column("scene", ["scene 1"] * 3).to_parquet(
            one_split.parent / "one" / "validation.parquet"
        )
        load_splits(Recipe.load(one_split, ["data.group_column=scene", "data.validation_split=validation"]).data)


def test_the_draw_follows_its_seed(one_split):
    """Another split_seed, another test split; shots are drawn of what stays."""
    draws = [load_splits(Recipe.load(one_split, [f"data.split_seed={seed}"]).data).rows for seed in (0, 0, 1)]
    assert (draws[0]["test"] == draws[1]["test"]).all() and set(draws[0]["test"]) != set(draws[2]["test"])
    few = load_splits(Recipe.load(one_split, ["data.shots=2"]).data).rows
    assert len(few["train"]) == 6 and not np.intersect1d(few["train"], few["test"]).size
    assert (few["test"] == draws[0]["test"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.test_split=train[:5]", "are two test splits"),
        ("data.test_fraction=1.5", "test_fraction"),
        ("data.group_column=scenes", "no column data.group_column='scenes'"),
        ("data.streaming=true", "Nothing can be held out of a stream; name a data.test_split"),
    ],
)
def test_what_does_not_go_together(one_split, change, message):
    """Two test splits, shares out of range, unknown columns and streams are refused before anything is computed."""
    with pytest.raises(ValueError, match=message):
        load_splits(Recipe.load(one_split, [change]).data)
