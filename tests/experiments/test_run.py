import os
import subprocess
import sys

import pytest
import torch
from datasets import Dataset, DatasetDict, Image

from attentive_probes import ProbeForImageClassification
from attentive_probes.data.images import ImageOptions
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.draw_splits import load_splits
from attentive_probes.scores.image_records import read_records
from attentive_probes.training.state.checkpoint import load_states
from spawned import on_processes
from tiny import image_dataset


def test_a_run_from_recipe_to_files(recipe_file, tmp_path):
    """One call trains, selects, scores the test split, draws, and writes a recipe that repeats the run."""
    results = run_recipe(Recipe.load(recipe_file, ["evaluation.report=true"]))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".lock",
        "attention.png",
        "history.jsonl",
        "checkpoints",
        "predictions.parquet",
        "best",
        "probes",
        "recipe.yaml",
        "report.html",
        "results.json",
        "right.jpg",
    }
    assert (tmp_path / "run" / "attention.png").stat().st_size > 5_000
    assert results.data["test"]["images"] == 23
    assert results.baseline == "gap"
    assert results.head("gap").test["top1_difference"] == [0, 0, 0]
    assert (
        ProbeForImageClassification.from_pretrained(tmp_path / "run" / "probes" / "ep").config.id2label[0] == "band 0"
    )
    pictures = [path.parent.name for path in (tmp_path / "run" / "probes").rglob("attention.png")]
    assert pictures == ["ep"]  # the head whose attention it shows, and no other
    again = Recipe.load(tmp_path / "run" / "recipe.yaml", [f"train.output_dir={tmp_path / 'again'}"])
    repeated = run_recipe(again)
    assert [head.history for head in repeated.heads] == [head.history for head in results.heads]


STREAMING = ["data.streaming=true", "data.labels=[band 0,band 1,band 2]", "train.max_steps=20"]
CACHED = ["data.tokens=cached", "data.augmentation=null", "data.cache.shard_size=8", "data.cache.encoding=float32"]
HALVING = ["train.halving_epochs=2", "train.selection_metric=loss"]


def run_from_file(path, changes):
    """A recipe, run in whatever process this is."""
    run_recipe(Recipe.load(path, changes))


@pytest.mark.slow
def test_the_command_runs_on_two_processes(recipe_file, tmp_path):
    """As `torchrun` starts it: one run, of two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    changes = ["evaluation.attention_head=null", "train.num_train_epochs=1", f"train.output_dir={tmp_path / 'run'}"]
    command += ["-m", "attentive_probes.cli", "train", str(recipe_file), *changes]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert SweepResults.load(tmp_path / "run" / "results.json").num_processes == 2


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("images", marks=pytest.mark.slow),
        pytest.param("stream", marks=pytest.mark.slow),
        "cache",
        pytest.param("halving", marks=pytest.mark.slow),
    ],
)
def test_two_processes_are_one(recipe_file, source, tmp_path):
    """Two processes count every sample once and give the results of one, batch statistics included."""
    overrides = [
        "evaluation.attention_head=null",
        *{"images": [], "stream": STREAMING, "cache": CACHED, "halving": HALVING}[source],
    ]
    reports = []
    for processes in (1, 2):
        folder = tmp_path / f"run{processes}"
        changes = [f"train.output_dir={folder}", f"data.cache.folder={folder}-tokens", *overrides]
        on_processes(processes, run_from_file, str(recipe_file), changes)
        reports.append(SweepResults.load(folder / "results.json").to_json(history=True))
    one, two = reports
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert one["data"] == two["data"]
    for first, second in zip(one["heads"], two["heads"], strict=True):
        for a, b in zip(first["history"], second["history"], strict=True):
            assert a == pytest.approx(b, abs=1e-4)
        assert first["test"]["top1"] == second["test"]["top1"]
        assert first["test"]["loss"] == pytest.approx(second["test"]["loss"], abs=1e-4)
    states = [load_states(tmp_path / f"run{n}" / "checkpoints" / "last.safetensors") for n in (1, 2)]
    for name, state in states[0].items():
        for key, tensor in state.items():
            assert torch.allclose(tensor, states[1][name][key], atol=1e-4), (name, key)
    predictions = [read_records(tmp_path / f"run{n}" / "predictions.parquet").sort_by("row") for n in (1, 2)]
    assert predictions[0].num_rows == 23 and predictions[0].column("predicted") == predictions[1].column("predicted")
    assert predictions[0].column("row") == predictions[1].column("row")
    # Whole images stand behind every accuracy: 21 and 23 of them, not padded batches.
    for head in two["heads"]:
        for count, value in ((21, head["validation"]["top1"]), (23, head["test"]["top1"])):
            assert value * count / 100 == pytest.approx(round(value * count / 100), abs=1e-9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("heads.ep.pooling=epp", "Head 'ep': Unknown pooling 'epp'. Did you mean 'ep'"),
        ("heads.ep.options.num_queries=5", "Head 'ep': num_queries=5 does not divide the feature width 32"),
        ("heads.ep.tokens=[registers]", "Head 'ep': The backbone has no registers tokens"),
        ("heads.ep.tokens=[patches@first]", "Head 'ep': Unknown tap 'first'"),
        ("evaluation.baseline=gpa", r"evaluation\.baseline: 'gpa'. Did you mean 'gap'"),
        ("heads.ep.tokens=[cls]", "attention_head='ep' reads no patches"),
        ("data.test_split=null", "needs a test_split"),
        ("backbone.name=/no/such/backbone", "no backbone"),
        ("backbone.dtype=float31", r"Unknown backbone\.dtype 'float31'. Did you mean 'float32'"),
        ("backbone.image_size=[16]", r"write \[height, width\]"),
        ("data.validation_split=test", "the test split 'test' share images"),
        ("data.validation_split=vaild", "Cannot load the split 'vaild'"),
        ("data.test_split=tset", "Cannot load the split 'tset'"),
        ("data.images.label_column=lable", "Did you mean 'label'"),
        ("data.images.image_column=img", "set image_column: 'img'"),
        ("data.labels=[band 0,band 1]", "knows no class 'band 2'"),
    ],
)
def test_mistakes_are_found_before_training(override, message, recipe_file, tmp_path):
    """Each names the value and the way out, and leaves no output folder behind."""
    with pytest.raises(ValueError, match=message):
        run_recipe(Recipe.load(recipe_file, [override]))
    assert not (tmp_path / "run").exists()


def test_a_broken_test_image_is_found_before_training(recipe_file, tmp_path):
    """The test split is checked with the others, not after hours of training."""
    broken = image_dataset(5).cast_column("image", Image(decode=False)).to_pandas()
    broken["image"] = [{**cell, "bytes": cell["bytes"][:50]} for cell in broken["image"]]
    Dataset.from_pandas(broken, features=image_dataset(5).features).to_parquet(tmp_path / "data" / "test.parquet")
    with pytest.raises(ValueError, match="5 of 5 test images"):
        run_recipe(Recipe.load(recipe_file))
    assert not (tmp_path / "run").exists()


def test_validation_is_held_out_of_train(tmp_path):
    """Without a validation split a part of train is held out, class by class; the two are disjoint."""
    DatasetDict({"train": image_dataset(60)}).save_to_disk(tmp_path)
    data = DataRecipe(str(tmp_path), validation_fraction=0.2, images=ImageOptions())
    splits = load_splits(data)
    train, validation = splits.parts["train"].data, splits.parts["validation"].data
    assert [validation["label"][:].count(c) for c in range(3)] == [4, 4, 4]
    assert len(train) == 48
    seen = {row["image"].tobytes() for row in train}
    assert not any(row["image"].tobytes() in seen for row in validation)


@pytest.mark.slow
def test_quickstart(tmp_path):
    """The shipped quickstart: EP-32 beats the better linear probe beyond chance; the cards have these numbers."""
    recipe = Recipe.load("recipes/quickstart.yaml", [f"train.output_dir={tmp_path / 'run'}"])
    results = run_recipe(recipe)
    better_linear = max(results.head("linear-cls").test["top1"], results.head("linear-mean").test["top1"])
    assert results.head(results.baseline).test["top1"] == better_linear
    assert results.head("ep32").test["top1_difference"][1] > 0
    stored = SweepResults.load("model_cards/quickstart.json")
    for head in results.heads:
        assert head.test["top1"] == pytest.approx(stored.head(head.name).test["top1"], abs=1.0)
