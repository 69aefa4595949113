"""Further test splits: each scored once, with the classes of the run, whatever they are called there."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from attentive_probes.data.load import load_split
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe

RECIPE = """
backbone: {{name: embedded:mae-tiny-fashion}}
data: {{dataset: embedded:fashion-mnist, train_split: "validation[:300]", validation_split: "validation[300:400]",
       test_split: "test[:100]", augmentation: null, tokens: cached, cache: {{folder: {folder}/tokens}},
       tests: {tests}}}
heads: {{linear: {{pooling: mean}}, ep4: {{pooling: ep, options: {{num_queries: 4}}}}}}
train: {{output_dir: {folder}/run, num_train_epochs: 2, batch_size: 50}}
evaluation: {{report: false}}
"""


@pytest.fixture(scope="module")
def boots(tmp_path_factory):
    """Bags and boots of the test split, under other names, in an order of their own."""
    data = load_split("embedded:fashion-mnist", "test")
    labels = np.array(data["label"])
    places = [*np.flatnonzero(labels == 9)[:40].tolist(), *np.flatnonzero(labels == 8)[:40].tolist()]
    part = data.select(places)
    names = ClassLabel(names=["boots", "bags"])
    shown = {"image": part["image"], "label": [0] * 40 + [1] * 40}
    folder = tmp_path_factory.mktemp("boots")
    Dataset.from_dict(shown, Features({"image": Image(), "label": names})).to_parquet(folder / "test.parquet")
    return folder


def run(folder, tests, *changes):
    return run_recipe(Recipe.of_text(RECIPE.format(folder=folder, tests=tests), changes))


@pytest.mark.slow
def test_each_is_scored_once(boots, tmp_path):
    """A subset with a class map, among its classes and among all, and a plain one; a resumed run looks at none."""
    own = f"dataset: {boots}, class_map: {{boots: Ankle boot, bags: Bag}}"
    later = 'later: {dataset: embedded:fashion-mnist, split: "test[100:200]"}'
    tests = f"{{two: {{{own}, only_its_classes: true}}, all: {{{own}}}, {later}}}"
    results = run(tmp_path, tests)
    for head in results.heads:
        assert set(head.tests) == {"two", "all", "later"}
        assert head.tests["two"]["top1"] >= head.tests["all"]["top1"] and head.tests["two"]["top1"] > 85
        assert head.tests["two"]["top1_interval"][0] < head.tests["two"]["top1"]
    assert results.data["two"]["images"] == 80 and results.data["later"]["images"] == 100
    saved = SweepResults.load(tmp_path / "run" / "results.json")
    assert saved.heads[0].tests == results.heads[0].tests
    again = run(tmp_path, tests, "train.resume=true")
    assert [head.tests for head in again.heads] == [head.tests for head in results.heads]


def test_images_of_training_are_told_of(boots, tmp_path, caplog):
    """A further test split that shares images with training is named, with how many."""
    run(tmp_path, '{old: {dataset: embedded:fashion-mnist, split: "validation[:20]"}}')
    assert "20 of 20 images of the old split are, byte for byte, in the train split as well." in caplog.text


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("{two: {dataset: BOOTS}}", "boots"),
        ("{two: {dataset: BOOTS, class_map: {boot: Bag}}}", r"class_map names \['boot'\]"),
        ("{two: {dataset: BOOTS, class_map: {boots: Boot, bags: Bag}}}", "Boot"),
        ("{test: {dataset: BOOTS}}", "the name of a split of the run"),
    ],
)  # fmt: skip
def test_wrong_sets_are_refused_before_the_run(tests, message, boots, tmp_path):
    """Classes that the run does not know, maps that miss and taken names are errors."""
    with pytest.raises(ValueError, match=message):
        run(tmp_path, tests.replace("BOOTS", str(boots)))
    assert not (tmp_path / "run" / "results.json").exists()
