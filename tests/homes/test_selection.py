"""Selection has one home: runs, studies, leaderboards and choices take the same setting, with the metric's own sign."""

import json

import numpy as np
import pandas as pd
import pytest

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.all_pairs import told_apart
from attentive_probes.evaluation.runs.candidates import Candidate, choose
from attentive_probes.evaluation.runs.families import best_of
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.tables import results_table, selected_how
from attentive_probes.studies.leaderboard import collect, rank
from attentive_probes.studies.records import add_rows, axes_of, gather, load_records, mark_selected, save_records
from attentive_probes.studies.study_summary import load_summary, ranks_test, summarize


def run(values, metric="top1", primary="top1", **changes):
    """Results of heads of one family: (what differs in the head, validation, test) -> their results."""
    heads = [
        HeadResult(f"ep-{i}", {"pooling": "ep", "tokens": ["patches"], "options": {}, **head}, 0.01, 0.0, 10, seed=seed,
                   family="ep", best_epoch=1, validation={metric: validation, "loss": 1.0, **({metric: validation})},
                   test={primary: test, "loss": 1.0})
        for i, (head, seed, validation, test) in enumerate(values)
    ]  # fmt: skip
    data = {"test": {"images": 100, "content": "abc"}}
    return SweepResults(heads, metric, {"name": "backbone"}, {"num_train_epochs": 1}, data, **changes)


def by_results(results):
    best = results.best_per_head[0].best
    return best.test


def by_rows(results):
    rows = mark_selected(pd.DataFrame(add_rows(results)), [])
    return rows.loc[rows["is_selected"], "test"].mean()


def by_study(results, folder):
    cell = folder / "runs" / "cell"
    cell.mkdir(parents=True, exist_ok=True)
    (cell / "rows.json").write_text(json.dumps({"identity": "x", "rows": add_rows(results, {"noise": "None"})}))
    save_records(gather([cell]), folder)
    return load_summary(folder).table["test"].item()


def by_leaderboard(results, folder):
    results.save(folder / "results.json")
    return rank(collect([str(folder)]))[0][1]["test"].iloc[0]


CASES = {
    "a loss that is small is good": ([({"dropout": 0.1}, 0, 0.12, 91.0), ({"dropout": 0.2}, 0, 0.69, 52.0)], "loss",
                                     "mean_average_precision", 91.0),
    "calibration error likewise": ([({"dropout": 0.1}, 0, 9.0, 52.0), ({"dropout": 0.2}, 0, 1.0, 91.0)], "ece", "top1",
                                   91.0),
    "settings differ by the whole head": (
        [({"dropout": d}, s, v, v) for d, s, v in [(0, 0, 90), (0, 1, 92), (0.5, 0, 60), (0.5, 1, 62)]],
        "top1", "top1", 91.0),
    "also by its norm": ([({"feature_norm": "none"}, 0, 70, 71), ({"feature_norm": "layernorm"}, 0, 80, 81)], "top1",
                         "top1", 81.0),
    "what is no number is never first": ([({"dropout": 0.1}, 0, float("nan"), 10.0), ({"dropout": 0.2}, 0, 50.0, 51.0)],
                                         "top1", "top1", 51.0),
    "errors of a regression": ([({"dropout": 0.1}, 0, 3.0, 3.1), ({"dropout": 0.2}, 0, 5.0, 5.1)],
                               "mean_absolute_error", "mean_absolute_error", 3.1),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_all_doors_take_one_setting(case, tmp_path):
    """Run, rows, study through its files, leaderboard: the test score of the same setting, for every kind of metric."""
    values, metric, primary, expected = CASES[case]
    results = run(values, metric, primary)
    (tmp_path / "run").mkdir()
    doors = {
        "run": by_results(results),
        "rows": by_rows(results),
        "study": by_study(results, tmp_path / "study"),
        "leaderboard": by_leaderboard(results, tmp_path / "run"),
    }
    assert doors == dict.fromkeys(doors, pytest.approx(expected))


def test_a_winner_stands_for_its_head_everywhere():
    """Where all candidates were compared, the setting of the one that won is that of its head, in rows as well."""
    results = run([({"dropout": 0.1}, 0, 80.0, 70.0), ({"dropout": 0.2}, 0, 81.0, 60.0)], selection={"winner": "ep-0"})
    assert by_results(results) == by_rows(results) == 70.0 and results.best.name == "ep-0"


def test_names_survive_files(tmp_path):
    """Entries called None, NA, null, 010, 1e-3 and 0.10 are names: each keeps its row and its text."""
    names = ["None", "NA", "null", "nan", "N/A", "010", "10", "1e-3", "0.10", "0.1", "True"]
    results = run([({}, 0, 80.0, 70.0)])
    folders = []
    for i, name in enumerate(names):
        folders.append(tmp_path / f"run-{i}")
        folders[-1].mkdir()
        rows = add_rows(results, {"noise": name})
        (folders[-1] / "rows.json").write_text(json.dumps({"identity": "", "rows": rows}))
    save_records(gather(folders), tmp_path)
    for place in (tmp_path, tmp_path / "study.parquet"):
        rows = load_records(place)
        assert rows["noise"].tolist() == names and axes_of(rows) == ["noise"]
    assert load_summary(tmp_path).table["noise"].tolist() == names


def test_numeric_names_of_runs_are_merged_with_their_answers(tmp_path):
    """A study whose runs are all called by numbers has its errors, image by image."""
    folders = []
    for name in ("3", "5"):
        results = run([({}, 0, 80.0, 50.0)])
        results.heads.append(HeadResult("linear", {"pooling": "mean"}, 0.01, 0.0, 10, best_epoch=1,
                                        validation={"top1": 70.0}, test={"top1": 75.0}))  # fmt: skip
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        rows = add_rows(results, {"shots": name})
        (folders[-1] / "rows.json").write_text(json.dumps({"identity": "", "rows": rows}))
        predictions = {"head": ["ep-0"] * 4 + ["linear"] * 4, "row": [0, 1, 2, 3] * 2,
                   "correct": [True, False] * 2 + [True] * 3 + [False]}  # fmt: skip
        pd.DataFrame(predictions).to_parquet(folders[-1] / "head_predictions.parquet")
    save_records(gather(folders), tmp_path)
    table = load_summary(tmp_path, "linear").table.set_index(["shots", "head"])
    assert table.loc[("5", "ep"), "gain"] == -25.0 and np.isfinite(table.loc[("3", "ep"), "error"])


def test_a_damaged_run_is_named_and_left_out(tmp_path, caplog):
    """Rows that were cut, are empty or hold something else are no rows; the other runs are there."""
    for name, text in {"cut": '{"identity": "x", "ro', "empty": "", "list": "[]", "good": None}.items():
        (tmp_path / name).mkdir()
        text = json.dumps({"identity": "", "rows": add_rows(run([({}, 0, 80.0, 70.0)]))}) if text is None else text
        (tmp_path / name / "rows.json").write_text(text)
    rows, _ = gather(tmp_path / name for name in ("cut", "empty", "list", "good"))
    assert rows["cell"].tolist() == ["good"]
    assert all(f"{name}/rows.json cannot be read" in caplog.text for name in ("cut", "empty", "list"))


def test_axes_are_not_averaged_and_records_count_once(tmp_path):
    """Two entries of an axis are two rows of a leaderboard; draws are averaged; a run given twice is there once."""
    folders = []
    for length, draw, test in (("short", "0", 59.0), ("long", "0", 75.0), ("long", "1", 77.0)):
        folders.append(tmp_path / f"{length}-{draw}")
        folders[-1].mkdir()
        results = run([({}, 0, test, test)])
        rows = add_rows(results, {"length": length, "draw": draw})
        (folders[-1] / "rows.json").write_text(json.dumps({"identity": "", "rows": rows}))
        results.save(folders[-1] / "results.json")
    save_records(gather(folders), tmp_path)
    ((_, table),) = rank(collect([str(tmp_path)]))
    assert table["test"].tolist() == [76.0, 59.0] and table["run"].tolist() == ["long", "short"]
    again = rank(collect([str(tmp_path), str(tmp_path), str(folders[0])]))
    assert again[0][1]["test"].tolist() == [76.0, 59.0]


def test_data_are_known_by_content(tmp_path):
    """Folders of one name with other images are ranked apart; the same images under two names together."""
    for name, dataset, content in (("a", "photos", "x"), ("b", "photos", "y"), ("c", "copy", "x")):
        results = run([({}, 0, 80.0, 70.0 + ord(name))], dataset={"name": dataset})
        results.data["test"]["content"] = content
        (tmp_path / name).mkdir()
        results.save(tmp_path / name / "results.json")
    groups = rank(collect([str(tmp_path / name) for name in "abc"]))
    assert sorted(len(table) for _, table in groups) == [1, 2]


def test_errors_have_their_sign_in_studies():
    """With a mean absolute error the smaller one gains, has the first rank, and is better in pairs."""
    rows = [{"data": f"set{run}", "head": head, "metric": "mean_absolute_error", "is_selected": True, "validation": 0.0,
             "test": 5.0 - place + run, "tokens": "patches", "learning_rate": 0.1}
            for run in range(4) for place, head in enumerate("abc")]  # fmt: skip
    summary = summarize(pd.DataFrame(rows), baseline="a")
    assert summary.table.set_index(["data", "head"]).loc[("set0", "c"), "gain"] == 2.0
    table, _ = ranks_test(summary)
    assert table.rank(axis=1, ascending=False).mean().to_dict() == {"a": 3.0, "b": 2.0, "c": 1.0}


def test_older_rows_are_selected_anew_and_say_so(tmp_path):
    """A CSV of an older release, which marked the wrong setting: the right one is taken."""
    text = "head,learning_rate,weight_decay,tokens,options,metric,validation,test,is_selected\n"
    text += "ep,0.1,0,patches,{},mean_average_precision,0.69,52,True\n"
    text += "ep,0.001,0,patches,{},mean_average_precision,0.12,91,False\n"
    (tmp_path / "study.csv").write_text(text)
    assert load_summary(tmp_path).table["test"].tolist() == [91.0]


def test_captions_say_what_was_done():
    """Best epoch, last epoch, or all candidates compared: the star says which."""
    results = run([({}, 0, 80.0, 70.0)])
    assert "as was each epoch" in selected_how(results)
    results.arguments["select_epoch"] = False
    assert "each head at its last epoch" in selected_how(results)
    results.selection = {"winner": "ep-0", "method": "Selected on 5-fold cross-validation of 9 images."}
    assert "5-fold" in selected_how(results) and "as was each epoch" not in results_table(results).caption


def test_equal_settings_and_missing_values():
    """The first of equals; one that lacks a seed comes last."""
    assert best_of({"a": [1.0], "b": [1.0]}, "top1") == "a"
    assert best_of({"a": [99.0, None], "b": [1.0, 2.0]}, "top1") == "b"


def equal_heads(rng, count, num_images=600, groups=None):
    """Heads of the same true accuracy, right about mostly the same images; of groups, alike within them."""
    base = rng.normal(size=num_images)
    own = rng.normal(size=(count, num_images))
    if groups is not None:
        base = base + rng.normal(size=groups.max() + 1)[groups]
        own = own + 0.5 * rng.normal(size=(count, groups.max() + 1))[:, groups]
    return (base + own) > -1.2


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(8), 75)], ids=["images", "8 groups"])
@pytest.mark.parametrize("count", [2, 5, 10, 20, 40])
def test_equal_heads_are_rarely_told_apart(count, groups):
    """Of 400 tables of heads that are equal in truth at most 5% have a star, within what chance does to 400 tables."""
    rng, stars = np.random.default_rng(count), 0
    for _ in range(400):
        right = equal_heads(rng, count, groups=groups)
        heads = [Candidate(str(i), str(i), 10, row[None]) for i, row in enumerate(right)]
        stars += any(standing.is_told_apart for standing in choose(heads, groups=groups).standings)
    assert stars / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_a_clear_difference_is_told_apart():
    """One head ten points behind, among thirty equals and with eight groups, is told apart from the best."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(8), 100)
    right = equal_heads(rng, 30, 800)
    right[3] &= rng.random(800) < 0.85
    best = int(right.mean(1).argmax())
    p = told_apart(right, best)
    assert p[3] < 0.01 and p[best] == 1 and (np.delete(p, 3) > 0.05).all()
    assert told_apart(right & (np.arange(30)[:, None] != 3), best, groups)[3] < 0.05  # one that is never right
    assert told_apart(np.ones((2, 9)), 0).tolist() == [1, 1] and told_apart(right[:1], 0).tolist() == [1]


def test_a_mean_over_classes_has_the_error_of_its_classes():
    """A perfect head has none; else it is the deviation over test sets of the same class sizes."""
    classes = np.r_[np.zeros(950, int), np.ones(50, int)]
    perfect = choose([Candidate("a", "a", 10, np.ones((1, 1000), bool))], strata=classes).standings[0]
    assert (perfect.accuracy, perfect.error) == (pytest.approx(100), pytest.approx(0, abs=1e-9))
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        right = np.where(classes == 0, rng.random(1000) < 0.9, rng.random(1000) < 0.7)
        found.append(choose([Candidate("a", "a", 10, right[None])], strata=classes).standings[0])
    deviation = np.std([one.accuracy for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(deviation, rel=0.12)
