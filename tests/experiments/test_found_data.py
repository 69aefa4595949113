"""What somebody's data are taken for: columns, kind of labels, classes, splits, folds and groups; said in one line."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image
from typer.testing import CliRunner

from attentive_probes.cli.main import commands
from attentive_probes.data.splitting.groups import paths_of
from attentive_probes.experiments.automatic import AutoOptions
from attentive_probes.experiments.options import find_run
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.draw_splits import load_splits
from attentive_probes.experiments.steps.split_files import write_keep
from attentive_probes.experiments.steps.taken_for import taken_for
from colours import picture

COLOURS = ("blue", "green", "red")


@pytest.fixture
def images(tmp_path):
    """Sixty images of three colours in a folder, by their paths from its parent."""
    (tmp_path / "im").mkdir()
    for i in range(60):
        image = picture(i % 3)
        image.putpixel((0, 0), (i, i, i))  # no copies
        image.save(tmp_path / "im" / f"{i:03}.png")
    return [f"im/{i:03}.png" for i in range(60)]


@pytest.fixture
def table(images, tmp_path):
    """Write a table of the images with further columns, each from its function of the number of an image."""

    def write(name="t.csv", **columns):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *columns])
            writer.writerows([path, *(of(i) for of in columns.values())] for i, path in enumerate(images))
        return tmp_path / name

    return write


def class_folders(root, classes):
    """Folder below `root` -> kinds of its images, of which no two are the same."""
    for name, kinds in classes.items():
        (root / str(name)).mkdir(parents=True, exist_ok=True)
        for i, kind in enumerate(kinds):
            image = picture(kind)
            image.putpixel((0, 0), tuple(hashlib.blake2b(f"{root}{name}{i}".encode(), digest_size=3).digest()))
            image.save(root / str(name) / f"{i:03d}.png")
    return root


def read(source, *changes, **options):
    """The recipe that is made for some data, its splits, and what they were taken for."""
    recipe = find_run(str(source), AutoOptions(**options), changes)
    raw = load_splits(recipe.data)
    return recipe, raw, taken_for(raw, recipe.data)


def colour(i):
    return COLOURS[i % 3]


def test_columns_are_found(table):
    """One of a usual name, the only one that is left, or several of zeros and ones; named ones are taken."""
    assert "3 classes (blue 20, green 20, red 20) in column diagnosis" in read(table(diagnosis=colour, age=str))[2]
    assert "in column colour" in read(table(colour=colour))[2]
    tags = table(sun=lambda i: i % 2, sea=lambda i: int(i % 3 == 0))
    recipe, raw, text = read(tags)
    assert "2 tags, several an image (sea, sun) in column sea,sun" in text
    assert recipe.data.problem_type == "multi_label_classification"
    found = dict(zip(numbers(raw.parts["train"]), raw.parts["train"].data["sea,sun"], strict=True))
    assert all(ids == [0] * (i % 3 == 0) + [1] * (i % 2) for i, ids in found.items())
    assert "(sun, sea)" in read(tags, label_column="sun,sea")[2]
    assert "(sun, sea)" in read(tags, "data.images.label_column=[sun, sea]")[2]
    with pytest.raises(ValueError, match="Name it .--label-column NAME"):
        read(table(first=colour, second=colour))
    with pytest.raises(ValueError, match="'first' holds more than zeros and ones"):
        read(table(first=colour, second=colour), label_column="first,second")


def test_the_kind_of_problem_may_be_said(table):
    """By an option, or by a recipe key; else it is found, and what else it could be is told."""
    ages = table(label=lambda i: 20 + 7 * i % 41)
    assert "numbers from 21 to 60, a regression" in read(ages)[2]
    recipe = find_run(str(ages), AutoOptions(problem="classes"), [])
    assert recipe.data.problem.has_one_class and recipe.selection is not None and recipe.evaluation.references
    few = table(label=lambda i: 1 + i % 5)
    for said in ({"problem": "numbers"}, {}):
        changes = [] if said else ["data.problem_type=regression"]
        recipe, _, text = read(few, *changes, **said)
        assert "numbers from 1 to 5" in text and recipe.selection is None and not recipe.evaluation.references
    tags = table(label=lambda i: ["sun", "sea", "sun|sea"][i % 3])
    assert read(tags)[0].data.images.label_separator == "|"
    assert "2 tags" in read(tags)[2] and "3 classes" in read(tags, problem="classes")[2]
    assert read(tags, "data.images.label_separator=|", problem="tags")[0].data.images.label_separator == "|"
    with pytest.raises(ValueError, match="--problem 'numers'. Did you mean 'numbers'"):
        read(few, problem="numers")


def test_folders_that_arenumbers(tmp_path):
    """Classes, or the numbers themselves, never the ranks of their names."""
    class_folders(tmp_path, {name: [k] * 8 for k, name in enumerate(("5", "20", "100"))})
    assert "3 classes (100 8, 20 8, 5 8)" in read(tmp_path)[2]
    text = read(tmp_path, problem="numbers")[2]
    assert "numbers from 5 to 100" in text
    class_folders(tmp_path, {"many": [3] * 8})
    with pytest.raises(ValueError, match="the class 'many' is no number"):
        read(tmp_path, problem="numbers")


def numbers(part):
    """The number of each image of a part, from the name of its file."""
    return [int(path[-7:-4]) for path in paths_of(part.data, "image")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("split", lambda i: ["train", "val", "test"][(i >= 40) + (i >= 50)]),
        ("Usage", lambda i: ["Training", "PublicTest", "PrivateTest"][(i >= 40) + (i >= 50)]),
        ("set", lambda i: ["TRAIN", "dev", "eval"][(i >= 40) + (i >= 50)]),
    ],
)
def test_splits_that_a_column_says(table, tmp_path, column, value):
    """In a CSV file and in Parquet alike; every image is where its row says."""
    path = table(label=colour, **{column: value})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    content = {key: [row[key] for row in rows] for key in rows[0]}
    content["image"] = [str(tmp_path / name) for name in content["image"]]
    Dataset.from_dict(content).to_parquet(tmp_path / "same.parquet")
    for source in (path, tmp_path / "same.parquet"):
        recipe, raw, text = read(source)
        assert recipe.data.split_column == column and f"(column {column})" in text
        assert sorted(numbers(raw.parts["test"])) == list(range(50, 60)) and sorted(
            numbers(raw.parts["validation"])
        ) == list(range(40, 50))


def test_flags_folds_and_words_that_are_no_splits(table):
    """`is_valid` holds validation out; numbered folds are those of the selection; other words are left alone."""
    recipe, raw, _ = read(table(label=colour, is_valid=lambda i: i % 5 == 0))
    assert sorted(numbers(raw.parts["validation"])) == list(range(0, 60, 5)) and recipe.data.test_fraction == 0.2
    recipe, raw, text = read(table(label=colour, fold=lambda i: i % 4))
    assert recipe.data.fold_column == "fold" and "folds: column fold" in text
    train = raw.parts["train"]
    assert [int(fold) for fold in train.folds] == [number % 4 for number in numbers(train)]
    recipe, _, _ = read(table(label=colour, set=lambda i: "abc"[i % 3]))
    assert recipe.data.split_column is None
    with pytest.raises(ValueError, match="data.split_column: 'splt'. Did you mean 'set'|column, set data.split_column"):
        read(table(label=colour, set=lambda i: "abc"[i % 3]), "data.split_column=splt")


def test_folds_of_the_data_are_those_of_the_selection(table, tiny_backbone, tmp_path):
    """As many folds as the data have, and each image is judged by heads that saw no other one of its fold."""
    path = table(label=colour, fold=lambda i: i % 3)
    changes = ["train.num_train_epochs=1", "grid.seed=[0]", "grid.learning_rate=[auto]", "evaluation.report=false"]
    options = AutoOptions(tiny_backbone("vit"), tmp_path / "run")
    recipe = find_run(str(path), options, [*changes, f"data.cache.folder={tmp_path / 'tokens'}"])
    results = run_recipe(recipe)
    assert "3-fold cross-validation of 48 images" in results.selection["method"]
    assert results.dataset["taken_for"].startswith("labels: 3 classes (blue 20, green 20, red 20) in column label")


def test_folders_above_the_classes(tmp_path):
    """Folds, parts and centres above the same classes are parts; images beside masks; a folder around all of them."""
    for fold in range(3):
        class_folders(tmp_path / "folds" / f"fold_{fold}", {name: [k] * 6 for k, name in enumerate(COLOURS)})
        class_folders(tmp_path / "centres" / f"centre{fold}", {name: [k] * 6 for k, name in enumerate(COLOURS)})
    for name in ("images", "masks"):
        class_folders(tmp_path / "masks" / name, {colour: [k] * 8 for k, colour in enumerate(COLOURS)})
    class_folders(tmp_path / "around" / "stuff", {colour: [k] * 8 for k, colour in enumerate(COLOURS)})
    recipe, raw, text = read(tmp_path / "folds")
    assert "3 classes (blue 18, green 18, red 18)" in text and recipe.data.fold_column == "fold"
    assert set(raw.parts["train"].folds) == {"0", "1", "2"}
    assert "groups: 3 by column folder" in read(tmp_path / "centres", group_column="folder")[2]
    assert "3 classes (blue 8, green 8, red 8)" in read(tmp_path / "masks")[2]
    assert "3 classes (blue 8, green 8, red 8)" in read(tmp_path / "around")[2]


def test_two_readings_are_refused_and_may_be_chosen(tmp_path):
    """Classes that hold the same folders each, of no usual name."""
    for k, name in enumerate(COLOURS):
        class_folders(tmp_path / name, {"left": [k] * 6, "right": [k + 6] * 6})
    with pytest.raises(ValueError, match=r"its folders .blue, green, red., or those in each of them .left, right."):
        read(tmp_path)
    assert "3 classes (blue 12" in read(tmp_path, "data.class_level=1")[2]
    assert "2 classes (left 18, right 18)" in read(tmp_path, "data.class_level=2")[2]


def test_tables_beside_folders_win(tmp_path):
    """Tables that name the images below them say more than folders do: labels, and the official splits."""
    class_folders(tmp_path / "named", {name: [k] * 15 for k, name in enumerate(COLOURS)})
    for split, places in (("train", range(10)), ("test", range(10, 15))):
        rows = "".join(f"{name}/{i:03}.png,{name}\n" for name in COLOURS for i in places)
        (tmp_path / "named" / f"{split}.csv").write_text(f"path,label\n{rows}")
    _, raw, text = read(tmp_path / "named")
    assert set(sorted(numbers(raw.parts["test"]))) == set(range(10, 15)) and "test 15" in text
    for part in (1, 2):
        class_folders(tmp_path / "parts", {f"images_part_{part}": [0] * 20})
    rows = "".join(f"{'12'[i % 2]}-{i:03}.png,{colour(i)}\n" for i in range(20))
    for i in range(20):
        old = tmp_path / "parts" / f"images_part_{1 + i % 2}" / f"{i:03}.png"
        old.rename(old.with_name(f"{'12'[i % 2]}-{i:03}.png"))
    (tmp_path / "parts" / "diagnoses.csv").write_text(f"Image,Diagnosis\n{rows}")
    assert "in column Diagnosis" in read(tmp_path / "parts")[2]


def test_lists_that_lie_about_change_nothing(tmp_path):
    """Predictions, findings of an audit and logs among class folders are left aside."""
    class_folders(tmp_path, {name: [k] * 15 for k, name in enumerate(COLOURS)})
    paths = [f"{name}/{i:03}.png" for name in COLOURS for i in range(15)]
    lists = {
        "predictions.csv": ["path,status,label_1,score_1", *(f"{path},ok,cat,0.9" for path in paths)],
        "audit.csv": ["kind,split,row,file,label", *(f"label,train,{i},{path},x" for i, path in enumerate(paths[:9]))],
        "log.csv": ["epoch,loss", "1,0.5"],
    }
    for name, lines in lists.items():
        (tmp_path / name).write_text("\n".join(lines))
        assert "3 classes (blue 15, green 15, red 15) in column label" in read(tmp_path)[2], name


def test_the_layout_of_competitions(tmp_path):
    """Ids in `train.csv`, images in `train/`, images of the same names without labels in `test/`."""
    for split, count in (("train", 30), ("test", 9)):
        (tmp_path / split).mkdir()
        for i in range(count):
            picture(i % 3).save(tmp_path / split / f"{i:05}.png")
    rows = "".join(f"{i:05},{colour(i)}\n" for i in range(30))
    (tmp_path / "train.csv").write_text(f"id,label\n{rows}")
    _, raw, text = read(tmp_path)
    assert "3 classes (blue 10, green 10, red 10) in column label" in text
    assert all("/train/" in path for path in paths_of(raw.parts["train"].data, "image"))


def test_labels_that_are_missing_or_look_alike(table):
    """Rows without a label are counted, and left out on request; classes that look alike are warned about."""
    path = table(label=lambda i: "" if i == 7 else f"{i % 3}")
    with pytest.raises(
        ValueError, match="1 of 60 train images have no label in the column 'label', the first in row 7"
    ):
        read(path)
    _, raw, text = read(path, "data.images.unlabelled=skip")
    assert (
        raw.warnings == ("1 of 60 train images have no label and were left out.",) and "3 classes (0 20, 1 19" in text
    )
    _, raw, text = read(table(label=lambda i: ["red", "red ", "blue"][i % 3]))
    assert "differ by spaces, case or forms of letters alone" in raw.warnings[0]


def test_groups_are_one_however_they_are_stored(table, tmp_path):
    """7, 7.0 and `007` are one patient, also across files; a patient that is not named is nobody else's."""
    path = table(label=colour, patient=lambda i: "" if i % 2 else f"{i % 8:03}")
    _, raw, text = read(path, group_column="patient")
    assert "30 of 60 train images name no group; each is a group of its own." in raw.warnings
    assert "groups: 34 by column patient" in text
    for name, patients in (("train", np.arange(30) % 10), ("test", (np.arange(30) % 10).astype(float))):
        content = {"image": [str(tmp_path / f"im/{i:03}.png") for i in range(30)], "patient": patients.tolist()}
        (tmp_path / "sets").mkdir(exist_ok=True)
        Dataset.from_dict({**content, "label": [colour(i) for i in range(30)]}).to_parquet(
            tmp_path / "sets" / f"{name}.parquet"
        )
    with pytest.raises(ValueError, match="The group '0' is in the train split and in the test split"):
        read(tmp_path / "sets", group_column="patient")


def test_images_of_no_group_are_apart_in_every_split(table, tmp_path):
    """Rows of the same number in two named splits are not one group for want of a name."""
    part = lambda i: ["train", "val", "test"][(i >= 30) + (i >= 45)]  # noqa: E731
    path = table(label=lambda i: "" if i == 47 else colour(i), split=part, patient=lambda i: "" if i % 3 else f"p{i}")
    _, raw, text = read(path, "data.images.unlabelled=skip", group_column="patient")
    groups = np.concatenate([part.groups for part in raw.parts.values()])
    assert len(np.unique(groups)) == len(groups) == 59 and len(raw.warnings) == 4
    assert "test 14 (column split); groups: 59" in text and "held out" not in text


def test_fewer_groups_than_folds(table, tiny_backbone, tmp_path, caplog):
    """The five folds that nobody asked for give way to four groups."""
    path = table(label=colour, patient=lambda i: i % 5)
    options = AutoOptions(tiny_backbone("vit"), tmp_path / "run", "patient")
    changes = ["train.num_train_epochs=1", "grid.seed=[0]", "grid.learning_rate=[auto]", "evaluation.report=false"]
    results = run_recipe(find_run(str(path), options, [*changes, f"data.cache.folder={tmp_path / 'tokens'}"]))
    assert "4-fold cross-validation" in results.selection["method"] and "of 4 groups: there are 4 folds" in caplog.text


def test_every_command_takes_the_columns(table, tmp_path):
    """`init` writes what `train` would read, with columns, kind and recipe keys."""
    path = table(what=colour, other=str)
    arguments = ["init", str(path), "data.test_fraction=0.3", "--label-column", "what", "--problem", "classes"]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    assert "label_column: what" in done.stdout and "test_fraction: 0.3" in done.stdout
    for command in ("train", "init", "choose", "audit"):
        text = CliRunner().invoke(commands, [command, "--help"], terminal_width=200).stdout
        assert "--label-column" in text and "--problem" in text and "--group-column" in text, command


def test_a_dry_run_says_what_the_data_were_taken_for(table, tiny_backbone):
    """The same line as a run, without training anything."""
    path = table(label=colour)
    done = CliRunner().invoke(commands, ["train", str(path), "--backbone", tiny_backbone("vit"), "--dry-run"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "labels: 3 classes (blue 20, green 20, red 20) in column label; splits: train 42, test 12" in text
    assert "3 classes; 42 train" in text and not (path.parent / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "tags"])
def test_predictions_are_kept_for_every_problem(table, tiny_backbone, tmp_path, kind):
    """A row per test image, from which the metrics of the results follow."""
    of = {"numbers": lambda i: f"{0.5 + (i % 3) + i / 100:.2f}", "tags": lambda i: ["sun", "sea", "sun|sea"][i % 3]}[
        kind
    ]
    changes = ["train.num_train_epochs=2", "grid.seed=[0]", "grid.learning_rate=[auto]", "evaluation.report=false"]
    recipe = find_run(str(table(label=of)), AutoOptions(tiny_backbone("vit"), tmp_path / "run"), [
        *changes, f"data.cache.folder={tmp_path / 'tokens'}",
    ])  # fmt: skip
    results = run_recipe(recipe)
    found = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pandas().sort_values("row")
    assert len(found) == 12
    if kind == "numbers":
        error = (found["label"] - found["predicted"]).abs().mean()
        assert error == pytest.approx(results.best.test["mean_absolute_error"], rel=1e-4)
        assert found["label"].between(0.5, 3.1).all()
    else:
        assert set(found["label"]) <= {"sea", "sun", "sea|sun"}
        said = (found[["probability_sea", "probability_sun"]].to_numpy() >= 0.5).tolist()
        names = ["|".join(n for n, is_on in zip(("sea", "sun"), row, strict=True) if is_on) for row in said]
        assert found["predicted"].tolist() == names


def test_what_to_keep_is_known_by_content(tmp_path):
    """A list leaves out what it means, not what lies where that was: after an image more or less it is refused."""
    for split, count in (("train", 10), ("val", 4), ("test", 4)):
        class_folders(tmp_path / "data" / split, {name: [k] * count for k, name in enumerate(COLOURS)})
    copied = tmp_path / "data" / "train" / "green" / "005.png"
    shutil.copy(tmp_path / "data" / "test" / "green" / "000.png", copied)
    _, raw, _ = read(tmp_path / "data")
    row = [Path(path) for path in paths_of(raw.parts["train"].data, "image")].index(copied)
    assert write_keep(raw, {"train": {row}}, tmp_path / "keep.csv") == 1
    _, kept, _ = read(tmp_path / "data", f"data.keep={tmp_path / 'keep.csv'}")
    left = set(paths_of(raw.parts["train"].data, "image")) - set(paths_of(kept.parts["train"].data, "image"))
    assert left == {str(copied)} and len(kept.parts["test"].data) == 12
    extra = tmp_path / "data" / "train" / "blue" / "0_new.png"
    picture(0, 9).save(extra)
    with pytest.raises(ValueError, match="does not know 1 of its images, for the train split"):
        read(tmp_path / "data", f"data.keep={tmp_path / 'keep.csv'}")
    extra.unlink()
    (tmp_path / "data" / "train" / "red" / "003.png").unlink()
    with pytest.raises(ValueError, match="lists 1 images that are not in it, for the train split"):
        read(tmp_path / "data", f"data.keep={tmp_path / 'keep.csv'}")
    (tmp_path / "rows.csv").write_text("split,row\n" + "".join(f"{s},{i}\n" for s in raw.parts for i in (0, 1, 9, 11)))
    assert len(read(tmp_path / "data", f"data.keep={tmp_path / 'rows.csv'}")[1].parts["train"].data) == 4


@pytest.mark.parametrize(("scale", "is_told"), [(1, True), (16, False)])
def test_images_of_twelve_bits_in_sixteen(tmp_path, scale, is_told):
    """X-rays of 12 bits are read as nearly black, which is said, with what they are to be multiplied by."""
    for k, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i in range(10):
            values = np.random.default_rng(i).integers(0, 2000 + 2000 * k, (8, 8)).astype(np.uint16) * scale
            Image.fromarray(values).save(tmp_path / name / f"{i}.png")
    warnings = read(tmp_path)[1].warnings
    assert any("as files of 12 bits do" in text and "Multiply them by 16" in text for text in warnings) == is_told
