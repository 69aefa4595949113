"""Metrics of medicine, subgroups and groups, from recipe to file."""

import numpy as np
import pytest
import yaml

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from tiny import image_dataset


@pytest.fixture
def recipe(recipe_file, tmp_path):
    """Two classes of 80 images from two cameras and 16 patients; the recipe with changes."""
    (tmp_path / "cells").mkdir()
    data = image_dataset(80, num_classes=2)
    data = data.add_column("camera", ["old" if i % 3 else "new" for i in range(80)])
    data.add_column("patient", [str(i // 5) for i in range(80)]).to_parquet(tmp_path / "cells" / "train.parquet")
    content = yaml.safe_load(recipe_file.read_text())
    content["data"] |= {"dataset": str(tmp_path / "cells"), "validation_split": None, "test_split": None}
    content["data"] |= {"test_fraction": 0.4, "augmentation": None}
    content["evaluation"] = {"baseline": "gap", "report": False}
    content["train"]["num_train_epochs"] = 1
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump(content))
    return lambda *changes: Recipe.load(tmp_path / "cells.yaml", changes)


ASKED = (
    "evaluation.metrics=[auroc,auprc,kappa,sensitivity]",
    "evaluation.slices=[camera]",
    "evaluation.specificity=0.8",
)


@pytest.mark.parametrize("tokens", [pytest.param((), marks=pytest.mark.slow), ("data.tokens=cached",)])
def test_metrics_and_subgroups(recipe, tmp_path, tokens):
    """The selected head and the baseline have them, with intervals; subgroups add up to the test split."""
    folder = f"data.cache.folder={tmp_path / 'tokens'}"
    results = run_recipe(recipe(*ASKED, *tokens, folder))
    for head in {results.best.name, "gap"}:
        test = results.head(head).test
        for name in ("auroc", "auprc", "sensitivity", "kappa"):
            low, high = test.get(f"{name}_interval", (test[name], test[name]))
            assert low - 1e-9 <= test[name] <= high + 1e-9
        cameras = test["slices"]["camera"]
        assert set(cameras) == {"old", "new"} and sum(one["images"] for one in cameras.values()) == 32
        assert sum(one["images"] * one["top1"] for one in cameras.values()) / 32 == pytest.approx(test["top1"])
    loaded = SweepResults.load(tmp_path / "run" / "results.json")
    assert loaded.best.test["slices"] == results.best.test["slices"]


def test_patients_widen_intervals(recipe):
    """With groups, the interval is that of patients, and their number is told; the report has the metrics."""
    results = run_recipe(recipe("data.group_column=patient", "evaluation.metrics=[auroc]"))
    count = results.data["test"]["groups"]
    assert 3 <= count <= 8
    test = results.best.test
    assert "top5_interval" not in test and 0 <= test["top1_interval"][0] <= test["top1"] <= test["top1_interval"][1]
    assert {"auroc", "top1_p"} <= set(results.head("gap").test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["evaluation.metrics=[auc]"], "Did you mean 'auroc'"),
        (["evaluation.slices=[kamera]"], "no column 'kamera'"),
        (["evaluation.metrics=[auroc]", "evaluation.positive=sick"], "evaluation.positive"),
        (["evaluation.slices=[camera]", "data.test_fraction=null"], "need a test split"),
        (["evaluation.specificity=1.5"], "specificity is 1.5"),
    ],
)
def test_what_cannot_be_told(recipe, changes, message):
    """Wrong names and columns are refused before training."""
    with pytest.raises(ValueError, match=message):
        run_recipe(recipe(*changes))


def test_targets_have_correlations(recipe_file, tmp_path):
    """A regression has Spearman and Pearson beside its error, each with an interval."""
    data = image_dataset(60, num_classes=3)
    (tmp_path / "ages").mkdir()
    data.remove_columns("label").add_column("label", np.array(data["label"]) + 0.5).to_parquet(
        tmp_path / "ages" / "train.parquet"
    )
    content = yaml.safe_load(recipe_file.read_text())
    content["data"] |= {"dataset": str(tmp_path / "ages"), "validation_split": None, "test_split": None}
    content["data"] |= {"test_fraction": 0.4, "augmentation": None, "problem_type": "regression"}
    content["evaluation"] = {}
    (tmp_path / "ages.yaml").write_text(yaml.safe_dump(content))
    test = run_recipe(Recipe.load(tmp_path / "ages.yaml")).best.test
    for name in ("spearman", "pearson"):
        assert -1 <= test[name] <= 1 and test[f"{name}_interval"][0] <= test[name] <= test[f"{name}_interval"][1]
