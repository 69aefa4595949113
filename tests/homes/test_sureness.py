"""How sure a number is has one home: groups go with an image through every door, and few of them say little."""

import numpy as np
import pandas as pd
import pytest
import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.choosing.adapter_gain import _sentence
from attentive_probes.choosing.learning_curve import learning_curve
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.diagnostics import doubts_of
from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.problems import PROBLEMS
from attentive_probes.problems.target_scores import TargetScores
from attentive_probes.scores.class_sums import score_classes
from attentive_probes.scores.image_records import ImageRecords
from attentive_probes.scores.resampling import compare_resampled, interval_of, resample
from attentive_probes.scores.statistics import (
    clustered_error,
    clustered_interval,
    compare_clustered,
    reach,
)
from attentive_probes.studies.study_summary import summarize
from tiny import image_dataset

GROUPS = np.repeat(np.arange(12), 10)
BY_GROUP = np.repeat(np.arange(12) % 3 > 0, 10)  # images of a group are all right or all wrong
EXPECTED = clustered_interval(BY_GROUP, GROUPS)


def scores():
    """Scores of two classes that are right as `BY_GROUP` says."""
    return score_classes(torch.from_numpy(np.stack([~BY_GROUP, BY_GROUP], 1)).double(), torch.ones(120).long())


def of_metrics(groups):
    return scores().test_metrics(scores(), groups)["top1_interval"]


def of_validation(groups):
    return scores().intervals(groups)["top1_interval"]


def of_slices(groups):
    records = ImageRecords(np.arange(120), np.ones(120, int), BY_GROUP.astype(int), np.ones(120))
    details = DetailOptions(groups=dict(enumerate(groups.tolist())), slices={"camera": dict.fromkeys(range(120), "x")})
    return details.of(records, np.arange(120))["slices"]["camera"]["x"]["top1_interval"]


DOORS = {"test": of_metrics, "validation": of_validation, "slice": of_slices}


@pytest.mark.parametrize("door", DOORS)
def test_all_doors_give_the_interval_of_groups(door):
    """Twelve groups, all right or all wrong, are twelve draws, wherever the interval is asked for."""
    assert DOORS[door](GROUPS.astype(str)) == pytest.approx([100 * end for end in EXPECTED])


def test_few_groups_reach_far_and_one_says_nothing():
    """Student's t with a degree less than there are groups; of a single group nothing is known, and nothing is said."""
    values, groups = np.random.default_rng(0).random(30) < 0.6, np.repeat(np.arange(3), 10)
    found = compare_clustered(values, ~values, groups)
    difference = values.astype(float) - ~values
    assert found.high - found.mean == pytest.approx(4.3027 * clustered_error(difference, groups), rel=1e-4)
    assert reach(3) == pytest.approx(4.3027, abs=1e-4) and reach(10**6) == pytest.approx(1.96, abs=1e-3)
    one = np.zeros(30, int)
    assert clustered_interval(values, one) is None and compare_clustered(values, ~values, one) is None
    assert scores().intervals(np.zeros(120)) == {}
    assert "top1_difference" not in scores().test_metrics(scores(), np.zeros(120))


def test_metrics_of_few_groups():
    """A bootstrap of fewer than ten groups becomes the jackknife's t; of one group it is not known."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(60, generator=generator)
    good, bad = (
        TargetScores(targets + s * torch.randn(60, generator=generator), targets, PROBLEMS["regression"])
        for s in (0.1, 2)
    )
    groups = np.repeat(np.arange(6), 10).astype(str)
    found = good.test_metrics(bad, groups)
    low, high = found["mean_absolute_error_interval"]
    by_group = (good.logits - targets).abs().reshape(6, 10).mean(1).numpy()  # of groups of one size, their means
    half = reach(6) * by_group.std(ddof=1) / 6**0.5
    assert (low, high) == pytest.approx((by_group.mean() - half, by_group.mean() + half), rel=1e-6)
    assert found["mean_absolute_error_p"] < 0.01
    nothing = good.test_metrics(bad, np.zeros(60))
    assert not any(key.endswith(("_interval", "_difference", "_p")) for key in nothing)


def test_clear_differences_of_metrics_are_significant_among_many():
    """Beyond the resolution of 1,000 draws a p-value goes on falling, and stays small corrected for 30 heads."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 1.0, 400), rng.normal(0.0, 1.0, 400)
    drawn = [resample(lambda rows, values=values: float(values[rows].mean()), 400) for values in (first, second)]
    found = compare_resampled(first.mean() - second.mean(), *drawn)
    assert found.p * 30 < 1e-6
    near = compare_resampled(0.0, drawn[0], drawn[0]._replace(values=drawn[0].values[::-1]))
    assert near.p > 0.5 and interval_of(drawn[0])[0] < first.mean() < interval_of(drawn[0])[1]


def test_studies_compare_by_groups():
    """Answers with groups: the error of a difference is that of groups, and a star needs more than they can say."""
    rows = pd.DataFrame([{"cell": "a", "name": head, "head": head, "test": 50.0, "validation": 1.0, "tokens": "cls",
                          "learning_rate": 0.1, "is_selected": True} for head in ("ep", "linear")])  # fmt: skip
    images = pd.DataFrame({"cell": "a", "head": ["ep"] * 120 + ["linear"] * 120, "row": [*range(120)] * 2,
                           "correct": [*BY_GROUP.tolist(), *([False] * 120)],
                           "group": [*GROUPS.astype(str)] * 2})  # fmt: skip
    found = summarize(rows, images, "linear").table.set_index("head").loc["ep"]
    assert found["error"] == pytest.approx(100 * clustered_error(BY_GROUP.astype(float), GROUPS))
    alone = summarize(rows, images.drop(columns="group"), "linear").table.set_index("head").loc["ep"]
    assert alone["error"] < 0.5 * found["error"]


@pytest.mark.slow
def test_a_learning_curve_by_groups():
    """Wider by groups that are alike than by as many images, and not known of three."""
    rng = np.random.default_rng(0)
    hard = rng.random(40)[np.repeat(np.arange(40), 10)]
    right = {size: rng.random(400) > hard * size**-0.3 * 2 for size in (50, 100, 200, 400)}
    groups = np.repeat(np.arange(40), 10)
    plain, by_group = (learning_curve(right, (800,), g).expected[800] for g in (None, groups))
    assert by_group[0] == plain[0] and by_group[2] - by_group[1] > 1.1 * (plain[2] - plain[1])
    assert np.isnan(learning_curve(right, (800,), np.repeat(np.arange(4), 100)).expected[800][1])


def test_an_adapter_is_compared_in_pairs():
    """The difference image by image with its interval, by groups where there are any."""
    text = _sentence(np.zeros(120, bool), BY_GROUP, GROUPS.astype(str), 3, 50)
    assert "in 12 groups" in text and "66.7 after 0.0 without" in text and "+66.7 [" in text


def test_validation_and_test_differ_by_groups():
    """Ten points between splits of four groups are no doubt; between as many single images they are."""
    from attentive_probes.evaluation.runs.head_result import HeadResult

    head = HeadResult("a", {"pooling": "mean"}, 0.1, 0.0, 1, best_epoch=1, validation={"top1": 85.0},
                      validation_interval=[60.0, 97.0], test={"top1": 75.0, "top1_interval": [50.0, 90.0]})  # fmt: skip
    data = {"validation": {"images": 2000}, "test": {"images": 2000}}
    results = SweepResults([head], "top1", {}, {"select_epoch": False}, data)
    assert any("differ by" in text for text in doubts_of(results))
    for split in data.values():
        split["groups"] = 4
    assert not any("differ by" in text for text in doubts_of(results))


@pytest.fixture(scope="module")
def patients(tiny_backbone, tmp_path_factory):
    """A run on images of twenty-four patients, with predictions, references, a choice by folds and an audit."""
    folder = tmp_path_factory.mktemp("patients")
    data = image_dataset(144).add_column("patient", [f"p{i // 6:02d}" for i in range(144)])
    data.to_parquet(folder / "scans.parquet")
    text = f"""
backbone: {{name: "{tiny_backbone("vit")}"}}
data: {{dataset: "{folder / "scans.parquet"}", test_fraction: 0.25, group_column: patient, tokens: cached,
        augmentation: null, validation_fraction: 0.3, cache: {{folder: "{folder / "tokens"}"}}}}
heads: {{linear: {{pooling: mean}}, ep: {{pooling: ep, options: {{num_queries: 4}}}}}}
train: {{output_dir: "{folder / "run"}", num_train_epochs: 2, batch_size: 32, learning_rate: 0.05}}
evaluation: {{predictions: true, references: {{logistic: {{method: logistic, tokens: [cls]}}}}}}
selection: {{folds: 0}}
"""
    return run_recipe(Recipe.of_text(text)), folder / "run"


def test_groups_go_through_a_run(patients):
    """Counted in both splits that judge, in the intervals of heads and references, the predictions, and the choice."""
    results, folder = patients
    assert results.data["test"]["groups"] == 6 and results.data["validation"]["groups"] in (5, 6)
    told = " ".join(results.warnings)
    assert "The test split holds 6 groups" in told and "selection.folds=5 judges heads by all groups" in told
    predictions = pd.read_parquet(folder / "head_predictions.parquet")
    right = predictions[predictions["head"] == "linear"]
    expected = clustered_interval(right["correct"].to_numpy(), right["group"].to_numpy())
    assert results.head("linear").test["top1_interval"] == pytest.approx([100 * end for end in expected])
    logistic = predictions[predictions["head"] == "logistic"]  # references answer the same images, in the same file
    assert logistic["row"].tolist() == right["row"].tolist() and logistic["group"].tolist() == right["group"].tolist()
    assert 100 * logistic["correct"].mean() == pytest.approx(results.references[0].test["top1"])
    assert f"in {results.data['validation']['groups']} groups" in results.selection["method"]
    widths = [high - low for low, high in (head.validation_interval for head in results.heads)]
    assert all(width > 0 for width in widths) and "top5_interval" not in results.references[0].test


def test_a_trained_probe_is_scored_by_groups(tiny_backbone):
    """`evaluate` clusters its intervals as a run does, and refuses groups that are not one per row."""
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), num_labels=3)
    data = image_dataset(30)
    found = evaluate_probe(probe, data, groups=np.repeat(np.arange(3), 10))
    alone = evaluate_probe(probe, data)
    assert found["groups"] == 3 and found["top1"] == alone["top1"]
    widths = [one["top1_interval"][1] - one["top1_interval"][0] for one in (found, alone)]
    assert widths[0] > widths[1]
    with pytest.raises(ValueError, match="There are 2 groups for 30 images"):
        evaluate_probe(probe, data, groups=["a", "b"])


def test_copies_are_a_group(tiny_backbone, tmp_path):
    """Every image twice, one of each pair under another name: the pair is in one split and one fold."""
    data = image_dataset(60)
    twice = data.select([*range(60), *range(60)])
    twice.to_parquet(tmp_path / "twice.parquet")
    from attentive_probes.experiments.blocks import DataRecipe
    from attentive_probes.experiments.steps.draw_splits import load_splits

    raw = load_splits(DataRecipe(str(tmp_path / "twice.parquet"), test_fraction=0.2, validation_fraction=0.2))
    sides = {}
    for role, part in raw.parts.items():
        for row in part.rows.tolist():
            sides.setdefault(row % 60, set()).add(role)
        assert part.groups is not None and len(set(part.groups)) == len(part.groups) / 2
    assert all(len(roles) == 1 for roles in sides.values())


def draw(rng, count, size, groups):
    shares = rng.beta(4, 1, count)
    return rng.random(count * size) < shares[groups]


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 8, 10, 20, 30])
def test_intervals_of_groups_cover(count):
    """Of 1,500 draws of so many groups, 93 to 97% of the intervals hold the true share, and the true difference."""
    rng, groups = np.random.default_rng(count), np.repeat(np.arange(count), 40)
    shares, differences, total = 0, 0, 1500
    for _ in range(total):
        low, high = clustered_interval(draw(rng, count, 40, groups), groups)
        shares += low <= 0.8 <= high
        shift = rng.normal(0, 0.15, count)
        pair = [rng.random(count * 40) < np.clip(0.75 + sign * shift, 0, 1)[groups] for sign in (1, -1)]
        found = compare_clustered(*pair, groups)
        differences += found.low <= 0 <= found.high
    assert 0.93 <= shares / total <= 0.975 and 0.93 <= differences / total <= 0.97
