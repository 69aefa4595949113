"""Somebody's images, one command, no recipe: what is made of them, and what it promises."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoImageProcessor, pipeline

from attentive_probes import ProbeForImageClassification
from attentive_probes.experiments import automatic
from attentive_probes.experiments import options as wishes
from attentive_probes.experiments.automatic import AutoOptions, automatic_recipe, find_backbone, is_data
from attentive_probes.experiments.options import find_run, seconds_of
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.training import cross_validation, profile
from odd_folder import add_oddities, write_photos
from tiny import image_dataset

SHORT = ["train.num_train_epochs=2", "grid.seed=[0]", "selection.folds=2"]


@pytest.fixture
def photos(tmp_path):
    """48 small images in three class folders, named after scenes of four."""
    for i, row in enumerate(image_dataset(48)):
        folder = tmp_path / "my photos" / f"band {row['label']}"
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"scene{i // 12}-{i}.png")
    return tmp_path / "my photos"


@pytest.fixture
def automatic_run(photos, tiny_backbone, tmp_path):
    """Train on the photos with changes; the folder of the run and its results."""

    def call(*changes, output="run", report=False, **wishes):
        options = AutoOptions(tiny_backbone("vit"), tmp_path / output, **wishes)
        changes = [*SHORT, f"data.cache.folder={tmp_path / 'tokens'}", f"evaluation.report={report}", *changes]
        recipe = find_run(str(photos), options, changes)
        return tmp_path / output, run_recipe(recipe)

    return call


def test_a_folder_and_nothing_else(automatic_run, photos, tmp_path):
    """Test and validation are held out, all heads are judged by folds, and what is left behind can be used."""
    folder, results = automatic_run(report=True)
    rows = list(csv.DictReader((folder / "splits.csv").read_text().splitlines()))
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "validation", "test")}
    assert counts == {"train": 36, "validation": 3, "test": 9} and all(row["file"] for row in rows)
    families = {one["family"] for one in results.selection["standings"]}
    assert families == {"linear", "linear-cls", "ep", "alf", "knn", "logistic"}
    assert "2-fold cross-validation of 39 images" in results.selection["method"]
    assert results.selection["sentence"].startswith(f"Selected {results.selection['winner']}")
    assert {head.best_epoch for head in results.heads} == {2} and "end of their schedule" in results.protocol
    assert results.baseline.startswith("linear") and all(head.test for head in results.heads)
    names = {path.name for path in folder.iterdir()}
    assert {"best", "report.html", "recipe.yaml", "results.json", "audit.csv", "predictions.parquet"} <= names
    assert results.selection["sentence"] in (folder / "report.html").read_text()
    processor = AutoImageProcessor.from_pretrained(folder / "best", backend="pil")
    classify = pipeline("image-classification", model=str(folder / "best"), image_processor=processor)
    assert {entry["label"] for entry in classify(str(next(photos.glob("*/*.png"))))} == {"band 0", "band 1", "band 2"}
    again = run_recipe(Recipe.load(folder / "recipe.yaml", [f"train.output_dir={tmp_path / 'again'}"]))
    assert again.selection == results.selection and [h.test for h in again.heads] == [h.test for h in results.heads]


def test_one_validation_split(automatic_run):
    """Without folds all heads are trained, and compared on validation with references; one of these can win."""
    folder, results = automatic_run(
        "selection.folds=0", "grid.learning_rate=[1e-9]", "train.num_train_epochs=1", report=True
    )
    assert "the validation split of 3 images" in results.selection["method"] and len(results.heads) == 4
    assert results.winner == results.selection["winner"] == "logistic"
    best = ProbeForImageClassification.from_pretrained(folder / "best")
    assert best.config.head["pooling"] == "concat"
    card = (folder / "best" / "README.md").read_text()
    assert "logistic regression" in card and "until convergence" in card and "Selected logistic" in card
    assert "Selected is <strong>logistic</strong>" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_refitting_and_resuming(automatic_run, tmp_path):
    """The heads of a refit learned from all images, the card says so, and a resumed run has them as they were."""
    folder, plain = automatic_run(output="plain")
    again, results = automatic_run(refit=True)
    assert results.selection["refit"] == 39 and plain.selection["refit"] == 0
    assert results.selection["winner"] == plain.selection["winner"]
    name = results.best.name
    probes = [ProbeForImageClassification.from_pretrained(place / "probes" / name) for place in (folder, again)]
    weights = [probe.head.classifier.weight for probe in probes]
    assert not torch.equal(*weights)
    assert "trained on all 39 training and validation images" in (again / "probes" / name / "README.md").read_text()
    before = (again / "results.json").read_text()
    automatic_run("train.resume=true", refit=True)
    assert (again / "results.json").read_text() == before
    same = ProbeForImageClassification.from_pretrained(again / "probes" / name).head.classifier.weight
    assert torch.equal(same, weights[1])


@pytest.mark.slow
def test_a_stopped_choice_goes_on(automatic_run, monkeypatch):
    """Folds that were judged are not judged again; the choice is that of a run that was never stopped."""
    _, whole = automatic_run(output="whole")
    real, calls = cross_validation.fit_heads, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(cross_validation, "fit_heads", stopping)
    with pytest.raises(KeyboardInterrupt):
        automatic_run()
    _, results = automatic_run("train.resume=true")
    assert len(calls) == 3 and results.selection == whole.selection


def test_scenes_stay_together(automatic_run):
    """Groups by file name are never divided between splits; what was judged says how many there were."""
    folder, results = automatic_run(group_pattern=r"scene\d+")
    rows = list(csv.DictReader((folder / "splits.csv").read_text().splitlines()))
    homes = {}
    for row in rows:
        homes.setdefault(row["group"], set()).add(row["split"])
    assert len(homes) == 4 and all(len(splits) == 1 for splits in homes.values())
    assert "groups" in results.selection["method"] and results.data["test"]["groups"] == 1


def test_what_is_made_of_other_data(tmp_path, tiny_backbone):
    """Named splits are used as they are, many images are judged by validation, targets are no classes."""
    options = AutoOptions(tiny_backbone("vit"))
    embedded = yaml.safe_load(automatic_recipe("embedded:fashion-mnist", options))
    assert embedded["data"]["test_split"] == "test" and embedded["data"]["validation_split"] == "validation"
    assert embedded["selection"] == {"folds": 0} and embedded["train"]["output_dir"].endswith("fashion-mnist")
    data = image_dataset(20).remove_columns("label").add_column("age", np.arange(20) / 7)
    (tmp_path / "ages").mkdir()
    data.to_parquet(tmp_path / "ages" / "all.parquet")
    ages = yaml.safe_load(
        automatic_recipe(str(tmp_path / "ages"), AutoOptions(tiny_backbone("siglip"), label_column="age"))
    )
    assert ages["data"]["problem_type"] == "regression" and "selection" not in ages
    assert ages["data"]["images"]["label_column"] == "age" and "linear-cls" not in ages["heads"]
    alone = yaml.safe_load(automatic_recipe(str(tmp_path / "ages"), options))
    assert alone["data"]["images"]["label_column"] == "age"  # the only column that is left
    found = find_run(str(tmp_path / "ages"), options, ["data.images.label_column=age"])
    assert found.data.problem_type == "regression" and found.data.images.label_column == "age"


def test_what_is_typed(tmp_path, photos, tiny_backbone):
    """Data and recipes are told apart; wishes about data are refused for recipes; times are read."""
    assert is_data(photos) and is_data("embedded:fashion-mnist") and is_data("me/flowers")
    assert not is_data("quickstart") and not is_data("recipes/quickstart.yaml") and not is_data("runs/mine.yml")
    with pytest.raises(ValueError, match="--backbone, --time: for data alone; 'quickstart' is a recipe"):
        find_run("quickstart", AutoOptions("x"), [], "10m")
    assert [seconds_of(text) for text in ("90s", "10m", "1.5h", "600")] == [90, 600, 5400, 600]
    for text in ("soon", "0m", "-3m"):
        with pytest.raises(ValueError, match="--time is"):
            seconds_of(text)
    with pytest.raises(ValueError, match="Cannot read"):
        automatic_recipe(str(tmp_path / "nowhere"), AutoOptions(tiny_backbone("vit")))


def test_less_of_what_does_not_fit_into_the_time(photos, tiny_backbone, caplog, monkeypatch):
    """Seeds go first, then folds, rates and images; what was left out is said."""
    caplog.set_level("INFO")
    monkeypatch.setattr(profile, "SECONDS", 0.01)
    options = AutoOptions(tiny_backbone("vit"))
    whole = find_run(str(photos), options, [], "10h")
    assert whole.grid["seed"] == [0, 1] and whole.selection.folds == 5 and whole.data.fraction is None
    short = find_run(str(photos), options, [], "0.01s")
    assert short.grid == {"learning_rate": ["auto"], "seed": [0]} and short.selection.folds == 0
    assert short.data.fraction < 1 and "grid.seed: [0, 1] -> [0]" in caplog.text
    monkeypatch.setattr(wishes, "process_state", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="--time is for one process"):
        find_run(str(photos), options, [], "10h")


def test_a_backbone_that_can_be_had(monkeypatch, caplog):
    """`auto` takes the first of the list that can be described, or the embedded one, and says which."""
    caplog.set_level("INFO")
    assert find_backbone("auto") == automatic.DEFAULT  # no Hub in reach
    assert "cannot be had" in caplog.text
    monkeypatch.setattr(automatic, "describe_backbone", lambda name, **_: None)
    assert find_backbone("auto") == (automatic.ON_GPU if torch.cuda.is_available() else automatic.ON_CPU)[0]
    assert find_backbone(None) == automatic.DEFAULT and "No backbone was named" in caplog.text


@pytest.mark.slow
def test_eight_hundred_photos_with_oddities(tmp_path, monkeypatch):
    """One command with the embedded backbone: exit 0, broken files counted, places together, and a probe that works."""
    from attentive_probes.cli.main import app

    folder = tmp_path / "photos"
    assert write_photos(folder) == 800
    add_oddities(folder)
    monkeypatch.chdir(tmp_path)
    command = ["attentive-probes", "train", "photos", "--group-pattern", r"[a-z]+\d\d(?=[- ])"]
    monkeypatch.setattr("sys.argv", [*command, "train.num_train_epochs=12", "grid.seed=[0]", "selection.folds=3"])
    with pytest.raises(SystemExit) as stop:
        app()
    assert stop.value.code == 0
    run = tmp_path / "outputs" / "photos"
    results = json.loads((run / "results.json").read_text())
    assert sum(split["unreadable"] for split in results["data"].values()) == 3
    assert sum(split["images"] for split in results["data"].values()) == 808
    assert results["data"]["test"]["groups"] >= 8
    best = next(head for head in results["heads"] if head["name"] == results["best"])
    assert best["test"]["top1"] > 60  # places that were never seen; guessing is 12.5
    classify = pipeline("image-classification", model=str(run / "best"))
    hits = [classify(str(path))[0]["label"] == path.parent.name for path in sorted(folder.glob("*/*0-9.jpg"))]
    assert np.mean(hits) > 0.6
    html = (run / "report.html").read_text()
    assert "left out as unreadable" in html and "The images and their labels" in html
