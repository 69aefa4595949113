"""What a run keeps of its predictions, and the pictures it draws of them."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.pictures import telling_predictions
from attentive_probes.scores.image_records import ImageRecords, read_records
from tiny import image_dataset, write_recipe

CACHED = ["data.tokens=cached", "data.augmentation=null", "data.cache.encoding=float32"]
SHORT = ["train.num_train_epochs=1"]


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    """The small recipe with its report, and the results of its run of one epoch beside it."""
    path = write_recipe(tiny_backbone, tmp_path_factory.mktemp("trained"), report=True)
    return path, run_recipe(Recipe.load(path, SHORT))


@pytest.fixture
def recipe_file(trained):
    """The recipe alone."""
    return trained[0]


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the folder of the run."""
    return Path(shutil.copytree(trained[0].parent / "run", tmp_path / "run"))


def records(labels, predictions, confidence, rows=None):
    rows = np.arange(len(labels)) if rows is None else np.asarray(rows)
    return ImageRecords(rows, np.asarray(labels), np.asarray(predictions), np.asarray(confidence))


@pytest.mark.parametrize("is_cached", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_predictions_of_the_selected_head(trained, folder, tmp_path, is_cached):
    """Each test image stands there once, with its label, and as often right as the accuracy says."""
    path, results = trained
    if is_cached:
        folder = tmp_path / "cached"
        changes = [*CACHED, f"data.cache.folder={tmp_path / 'tokens'}", f"train.output_dir={folder}"]
        results = run_recipe(Recipe.load(path, [*SHORT, *changes]))
    table = read_records(folder / "predictions.parquet").to_pandas()
    assert sorted(table["row"]) == list(range(23))
    labels = image_dataset(23, seed=23)["label"]
    assert [f"band {labels[row]}" for row in table["row"]] == table["label"].tolist()
    right = 100 * (table["label"] == table["predicted"]).mean()
    assert right == pytest.approx(results.best.test["top1"])
    bins = np.array(results.best.test["reliability"])
    assert bins[:, 0].sum() == 23 and table["probability"].mean() == pytest.approx(
        (bins[:, 0] * bins[:, 2]).sum() / 2300, abs=1e-6
    )
    sums = np.abs(bins[:, 1] - bins[:, 2]) * bins[:, 0]
    assert sums.sum() / 23 == pytest.approx(results.best.test["ece"])


def test_the_most_confident_mistakes_come_first(tmp_path):
    """Mistakes by their confidence; correct predictions from the surest to the least sure."""
    path = tmp_path / "head_predictions.parquet"
    found = records([0] * 9, [0, 1, 1, 0, 1, 0, 0, 0, 0], [0.9, 0.6, 0.8, 0.5, 0.7, 0.99, 0.4, 0.3, 0.95])
    found.save(path, {0: "a", 1: "b"}, places=np.arange(100, 109))
    wrong, right = telling_predictions(path)
    assert [answer["row"] for answer in wrong] == [102, 104, 101]
    assert [answer["row"] for answer in right] == [105, 100, 107]
    assert wrong[0] == {"row": 102, "label": "a", "predicted": "b", "probability": pytest.approx(0.8)}
    records([0, 0], [0, 0], [0.9, 0.8]).save(path, {0: "a"})
    assert telling_predictions(path)[0] == [] and len(telling_predictions(path)[1]) == 2
    pq.write_table(pa.table({"row": [1.5]}), path)
    with pytest.raises(ValueError, match="head_predictions.parquet cannot be read"):
        telling_predictions(path)


def test_heads_without_maps_are_drawn_as_well(recipe_file, tmp_path):
    """Where the selected head reads the class token alone, its predictions stand under the images."""
    changes = ["heads.gap.tokens=[cls]", "heads.ep.learning_rate=0.000001", "evaluation.attention_head=null"]
    results = run_recipe(Recipe.load(recipe_file, [*SHORT, *changes, f"train.output_dir={tmp_path / 'run'}"]))
    if results.best.name != "gap":
        pytest.fail("the head that hardly learns was selected")
    with Image.open(tmp_path / "run" / "wrong.jpg") as picture:
        assert picture.height < 320  # one row of images


@pytest.mark.slow
def test_families_may_be_named(recipe_file, tmp_path):
    """Under a grid, the name of a head means its best setting, as baseline and in pictures; others are refused."""
    changes = [*SHORT, "grid.learning_rate=[0.05,0.0001]", f"train.output_dir={tmp_path / 'run'}"]
    results = run_recipe(Recipe.load(recipe_file, changes))
    family = next(family for family in results.best_per_head if family.name == "gap")
    assert results.baseline == family.best.names[0]
    shown = next(family for family in results.best_per_head if family.name == "ep").best.names[0]
    pictures = [path.parent.name for path in (tmp_path / "run" / "probes").rglob("attention.png")]
    assert pictures == [shown]
    with pytest.raises(ValueError, match="evaluation.attention_head: 'epp'"):
        run_recipe(Recipe.load(recipe_file, [*changes, "evaluation.attention_head=epp", "train.overwrite=true"]))
    changes += ["evaluation.attention_head=best", "train.overwrite=true"]
    results = run_recipe(Recipe.load(recipe_file, changes))
    pictures = [path.parent.name for path in (tmp_path / "run" / "probes").rglob("attention.png")]
    assert pictures == [results.best.name]


def test_maps_that_have_no_place(recipe_file, tmp_path, monkeypatch, caplog):
    """Where a processor does what maps cannot follow, the images stand with their predictions alone."""

    def fail(*arguments):
        raise ValueError("The image processor turns images around.")

    monkeypatch.setattr("attentive_probes.analysis.explanations.placement_of", fail)
    changes = ["evaluation.attention_head=null", f"train.output_dir={tmp_path / 'run'}"]
    run_recipe(Recipe.load(recipe_file, [*SHORT, *changes]))
    assert "turns images around" in caplog.text
    with Image.open(tmp_path / "run" / "right.jpg") as picture:
        assert picture.height < 320


def test_pictures_of_an_earlier_run_do_not_stay(recipe_file, folder):
    """A run that is started again without pictures leaves none of those that were there."""
    assert (folder / "report.html").read_text().count("<figure>") >= 5
    changes = [*SHORT, f"train.output_dir={folder}", "train.overwrite=true", "evaluation.attention_head=null"]
    run_recipe(Recipe.load(recipe_file, [*changes, "data.test_split=null", "evaluation.baseline=null"]))
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg")) == []
    assert "The test split was not scored." in (folder / "report.html").read_text()


def test_the_report_is_finished_on_resume(recipe_file, folder):
    """A run that was killed after its test split was scored draws and reports from what it kept."""
    before = {name: (folder / name).read_bytes() for name in ("report.html", "right.jpg", "predictions.parquet")}
    for name in ("report.html", "right.jpg", "attention.png"):
        (folder / name).unlink()
    run_recipe(Recipe.load(recipe_file, [*SHORT, f"train.output_dir={folder}", "train.resume=true"]))
    before["report.html"] = before["report.html"].replace(bytes(recipe_file.parent / "run"), bytes(folder))
    for name, content in before.items():
        assert (folder / name).read_bytes() == content, name
    assert SweepResults.load(folder / "results.json").best.test
