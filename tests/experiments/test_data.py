"""The data of a recipe, from labels of any kind to test accuracies that are right."""

import shutil

import pytest
import yaml
from datasets import ClassLabel

from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.draw_splits import load_splits
from colours import class_folders, png, shard, table

CLASSES = [0, 2, 6, 8, 12, 14, 16, 3, 17, 11, 5, 9]  # colours far apart


@pytest.fixture
def run(tmp_path):
    """Run a small recipe over some data."""

    def run(dataset, epochs=12, evaluation=None, **data):
        recipe = {
            "backbone": {"name": "embedded:mae-tiny-fashion"},
            "data": {"dataset": str(dataset), "test_split": "test", "augmentation": None, **data},
            "heads": {"linear": {"pooling": "mean", "tokens": ["cls", "mean"]}},
            "train": {"output_dir": str(tmp_path / "run"), "overwrite": True, "num_train_epochs": epochs,
                      "batch_size": 32, "learning_rate": 0.3},
            "evaluation": {"report": False, **(evaluation or {})},
        }  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        return run_recipe(Recipe.load(tmp_path / "recipe.yaml"))

    return run


def parquet(root, train, test, per_class=(12, 4), feature=None):
    """Splits of labels, each label in the colour of its place in the training labels."""
    root.mkdir(exist_ok=True)
    for split, labels, count in (("train", train, per_class[0]), ("test", test, per_class[1])):
        repeated = [label for _ in range(count) for label in labels]
        kinds = [CLASSES[train.index(label)] for label in repeated]
        stored = [train.index(label) for label in repeated] if feature else repeated
        table(kinds, stored, feature).to_parquet(root / f"{split}.parquet")
    return root


@pytest.mark.parametrize(
    ("train", "test", "options"),
    [
        (list(range(12)), list(range(12)), {}),
        pytest.param([1, 2, 3, 4, 5], [1, 2, 3, 4], {}, marks=pytest.mark.slow),
        pytest.param([1, 2, 3, 4], [4, 2], {}, marks=pytest.mark.slow),
        pytest.param([0, 2, 5, 7], [7, 5, 0], {}, marks=pytest.mark.slow),
        ([-1, 30, 4], [30, -1], {}),
        pytest.param([True, False], [False], {}, marks=pytest.mark.slow),
        pytest.param([0.0, 1.0, 2.0], [2.0, 0.0], {}, marks=pytest.mark.slow),
        (["b", "NA", "10", "9"], ["9", "NA"], {}),
        pytest.param([0, 1, 2], [2, 1], {"labels": ["ant", "bee", "cat"]}, marks=pytest.mark.slow),
        ([2, 0, 1], [1, 2], {"num_labels": 3}),
        pytest.param([3, 4, 9, 7, 5, 1, 2, 6, 8], [9, 1], {"shots": 5, "epochs": 40}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_test_accuracy_is_that_of_validation(run, tmp_path, train, test, options):
    """Validation held out of the training split, test a split of its own: both are right, whatever the labels are."""
    results = run(parquet(tmp_path / "data", train, test), **options)
    assert results.heads[0].validation["top1"] == results.heads[0].test["top1"] == 100


def test_webdataset_and_class_folders(run, tmp_path):
    """Numbers in .cls of twelve classes, and folders named 1, 2, 10, 11."""
    for split, count in (("train", 6), ("test", 2)):
        samples = [{"png": png(CLASSES[i]), "cls": str(i).encode()} for _ in range(count) for i in range(12)]
        shard(tmp_path / "shards" / f"{split}-0.tar", samples)
        class_folders(tmp_path / "folders" / split, {n: [CLASSES[i]] * count for i, n in enumerate((1, 2, 10, 11))})
    for source in ("shards", "folders"):
        assert run(tmp_path / source).heads[0].test["top1"] == 100


def test_labels_that_yaml_has_other_values_for(tmp_path):
    """`no`, `001`, `null` and `1e3` are names as they are written, in the file and on the command line."""
    path = tmp_path / "recipe.yaml"
    text = "backbone: {name: x}\ndata:\n  dataset: y\n  labels: [no, yes, 001, 010, null, 1e3, 0x1F, on]\nheads: {}\n"
    path.write_text(text + "train: {output_dir: z}\n")
    assert Recipe.load(path).data.labels == ["no", "yes", "001", "010", "null", "1e3", "0x1F", "on"]
    assert Recipe.load(path, ["data.labels=[off,007]"]).data.labels == ["off", "007"]
    Recipe.load(path).save(tmp_path / "again.yaml")
    assert Recipe.load(tmp_path / "again.yaml").data.labels == Recipe.load(path).data.labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"validation_split": "train[:50%]"},
            "The training split 'train' and the validation split 'train.*share images",
        ),
        ({"train_split": "train[:60%]", "validation_split": "train[50%:]"}, "share images"),
        ({"train_split": "train[:80%]", "test_split": "train[60%:]"}, "training split .* and the test split .* share"),
        ({"validation_split": "val", "test_split": "validation"}, "share images"),
    ],
)
def test_splits_that_share_rows_by_name(run, tmp_path, options, message):
    """Overlapping slices and synonyms of one split are refused before anything is read."""
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "nowhere", **options)


def test_splits_that_share_rows_by_content(run, tmp_path, caplog):
    """A copy of a split under another name is refused; single images in both draw a warning."""
    data = table([CLASSES[i % 4] for i in range(60)], [i % 4 for i in range(60)])
    root = tmp_path / "copies"
    root.mkdir()
    data.to_parquet(root / "train.parquet")
    data.select(range(8)).to_parquet(root / "test.parquet")
    assert run(root, epochs=1).data["test"]["images"] == 8
    assert "8 of 8 images of the test split are, byte for byte, in the train split" in caplog.text
    shutil.copy(root / "train.parquet", root / "validation.parquet")
    with pytest.raises(ValueError, match="The train split and the validation split hold the same images"):
        run(root, validation_split="validation")


def test_few_images(run, tmp_path, caplog):
    """Forty images of twelve classes, one of them once: trained, with warnings; k-NN tries what the bank allows."""
    labels = [0] * 12 + [1] * 9 + [2] * 6 + [3] * 3 + [4]
    root = tmp_path / "data"
    root.mkdir()
    for split, content in (("train", labels), ("test", [0, 1, 2, 3])):
        feature = ClassLabel(names=[f"c{i}" for i in range(12)])
        table([CLASSES[label] for label in content], content, feature).to_parquet(root / f"{split}.parquet")
    references = {"references": {"nn": {"method": "knn", "tokens": ["cls"]}}}
    results = run(root, evaluation=references)
    assert results.data["validation"]["images"] == 4 and len(results.heads[0].test["per_class"]) == 12
    low, high = results.heads[0].validation_interval
    assert high - low > 40 and "The validation split holds 4 images" in " ".join(results.warnings)
    assert "The train split has no image of 7 of 12 classes (c5, c6, c7, c8, c9, ...)." in results.warnings
    assert results.references[0].settings["k"] <= 27 and results.references[0].test["top1"] == 100
    assert "1 classes have all of their images in training" in caplog.text


def test_the_seed_of_the_split_is_its_own(tmp_path):
    """What is held out follows `data.split_seed` alone."""
    table([0] * 40, list(range(20)) * 2).to_parquet(tmp_path / "one.parquet")

    def held(seed):
        data = DataRecipe(str(tmp_path / "one.parquet"), validation_fraction=0.5, split_seed=seed)
        splits = load_splits(data)
        return splits.rows["validation"].tolist()

    assert held(0) == held(0) != held(1)
