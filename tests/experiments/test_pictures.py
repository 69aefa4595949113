"""What a run keeps of its answers, and the pictures it draws of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.pictures import telling_answers
from attentive_probes.scores.image_records import ImageRecords, read_records
from tiny import image_dataset, write_recipe

CACHED = ["data.tokens=cached", "data.augmentation=null", "data.cache.encoding=float32"]
ONE_HEAD = ["heads.ep.tokens=[cls,patches]", "evaluation.baseline=ep"]


@pytest.fixture
def recipe_file(tiny_backbone, tmp_path):
    """The small recipe, with its report."""
    return write_recipe(tiny_backbone, tmp_path, report=True)


def records(labels, answers, confidence, rows=None):
    rows = np.arange(len(labels)) if rows is None else np.asarray(rows)
    return ImageRecords(rows, np.asarray(labels), np.asarray(answers), np.asarray(confidence))


@pytest.mark.parametrize("tokens", [["data.tokens=online"], CACHED])
def test_answers_of_the_selected_head(recipe_file, tmp_path, tokens):
    """Each test image stands there once, with its label, and as often right as the accuracy says."""
    changes = [*tokens, f"data.cache.folder={tmp_path / 'tokens'}", "train.num_train_epochs=1"]
    results = run_recipe(Recipe.load(recipe_file, changes))
    table = read_records(tmp_path / "run" / "predictions.parquet").to_pandas()
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
    """Mistakes by their confidence; right answers from the surest to the least sure."""
    path = tmp_path / "answers.parquet"
    found = records([0] * 9, [0, 1, 1, 0, 1, 0, 0, 0, 0], [0.9, 0.6, 0.8, 0.5, 0.7, 0.99, 0.4, 0.3, 0.95])
    found.save(path, {0: "a", 1: "b"}, places=np.arange(100, 109))
    wrong, right = telling_answers(path)
    assert [answer["row"] for answer in wrong] == [102, 104, 101]
    assert [answer["row"] for answer in right] == [105, 100, 107]
    assert wrong[0] == {"row": 102, "label": "a", "predicted": "b", "probability": pytest.approx(0.8)}
    records([0, 0], [0, 0], [0.9, 0.8]).save(path, {0: "a"})
    assert telling_answers(path)[0] == [] and len(telling_answers(path)[1]) == 2
    pq.write_table(pa.table({"row": [1.5]}), path)
    with pytest.raises(ValueError, match="answers.parquet cannot be read"):
        telling_answers(path)


def test_heads_without_maps_are_drawn_as_well(recipe_file, tmp_path):
    """Where the selected head reads the class token alone, its answers stand under the images."""
    changes = ["heads.gap.tokens=[cls]", "heads.ep.learning_rate=0.000001", "train.num_train_epochs=1"]
    results = run_recipe(Recipe.load(recipe_file, changes))
    if results.best.name != "gap":
        pytest.fail("the head that hardly learns was selected")
    with Image.open(tmp_path / "run" / "wrong.jpg") as picture:
        assert picture.height < 320  # one row of images


def test_families_may_be_named(recipe_file, tmp_path):
    """Under a grid, the name of a head means its best setting, as baseline and in pictures; others are refused."""
    changes = ["train.num_train_epochs=1", "grid.learning_rate=[0.05,0.0001]", "evaluation.baseline=gap"]
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
    """Where a processor does what maps cannot follow, the images stand with their answers alone."""

    def fail(*arguments):
        raise ValueError("The image processor turns images around.")

    monkeypatch.setattr("attentive_probes.analysis.explanations.placement_of", fail)
    run_recipe(Recipe.load(recipe_file, ["train.num_train_epochs=1", "evaluation.attention_head=null"]))
    assert "turns images around" in caplog.text
    with Image.open(tmp_path / "run" / "right.jpg") as picture:
        assert picture.height < 320


def test_pictures_of_an_earlier_run_do_not_stay(recipe_file, tmp_path):
    """A run that is begun anew without pictures leaves none of those that were there."""
    run_recipe(Recipe.load(recipe_file, ["train.num_train_epochs=1"]))
    text = (tmp_path / "run" / "report.html").read_text()
    assert text.count("<figure>") >= 5
    changes = ["train.num_train_epochs=1", "train.overwrite=true", "evaluation.attention_head=null"]
    run_recipe(Recipe.load(recipe_file, [*changes, "data.test_split=null", "evaluation.baseline=null"]))
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.suffix in (".png", ".jpg")) == []
    assert "The test split was not scored." in (tmp_path / "run" / "report.html").read_text()


def test_the_report_is_finished_on_resume(recipe_file, tmp_path):
    """A run that was killed after its test split was scored draws and reports from what it kept."""
    run_recipe(Recipe.load(recipe_file, ["train.num_train_epochs=1"]))
    folder = tmp_path / "run"
    before = {name: (folder / name).read_bytes() for name in ("report.html", "right.jpg", "predictions.parquet")}
    for name in ("report.html", "right.jpg", "attention.png"):
        (folder / name).unlink()
    run_recipe(Recipe.load(recipe_file, ["train.num_train_epochs=1", "train.resume=true"]))
    for name, content in before.items():
        assert (folder / name).read_bytes() == content, name
    assert SweepResults.load(folder / "results.json").best.test
