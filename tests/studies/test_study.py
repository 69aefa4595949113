"""Studies: many runs from one file, resumed, summarized, drawn and ranked."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from attentive_probes.studies.leaderboard import collect, leaderboard_markdown, rank
from attentive_probes.studies.records import load_records, mark_selected
from attentive_probes.studies.study import Study
from attentive_probes.studies.study_figures import draw_study
from attentive_probes.studies.study_page import write_page
from attentive_probes.studies.study_run import failures, identity, is_done, run_study
from attentive_probes.studies.study_summary import load_summary, ranks_test, summarize
from attentive_probes.studies.study_tables import accuracy_table, costs_table, render

STUDY = """
recipe:
  backbone: {name: embedded:mae-tiny-fashion}
  data: {dataset: embedded:fashion-mnist, train_split: "validation[:100]", validation_split: "validation[200:260]",
         test_split: "test[:80]", augmentation: null, tokens: cached}
  heads:
    linear: {pooling: mean, tokens: ["patches@*"]}
    ep4: {pooling: ep, options: {num_queries: 4}}
  grid: {learning_rate: [0.01, 0.1], seed: [0, 1]}
  train: {num_train_epochs: 1, batch_size: 50}
  evaluation: {predictions: true}
vary:
  backbones: {mae: , random: {backbone.random_weights: true}, none: {backbone.name: no/such/folder}}
  adaptation:
    frozen:
    lora: {lora: {r: 2}, data.tokens: online, heads: {ep4: {pooling: ep, options: {num_queries: 4}}},
           grid: {seed: [0, 1]}}
taps: [block:1, last]
skip: [{adaptation: lora, backbones: [random, none]}]
baseline: linear@last
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with a run that fails, run once, and its failures."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    loaded = Study.load(folder / "study.yaml", [f"output_dir={folder / 'out'}"])
    return loaded, run_study(loaded), folder / "out"


def test_runs_are_the_product_of_the_axes(study):
    """Every combination but the skipped ones; heads with an adapter run alone; stars are taps."""
    names = [cell.name for cell in study[0].cells()]
    assert names == ["mae-frozen", "mae-lora-000", "mae-lora-001", "random-frozen", "none-frozen"]
    frozen, first, second = study[0].cells()[:3]
    assert list(frozen.recipe.heads) == ["linear@block1", "linear@last", "ep4"]
    assert [len(cell.recipe.head_runs()) for cell in (frozen, first, second)] == [12, 1, 1]
    assert second.recipe.train.seed == 1 and second.recipe.lora.r == 2


def test_a_failed_run_is_named_and_the_rest_goes_on(study):
    """The backbone that does not exist is in the failures and on the page; rows are those of the others."""
    loaded, failed, folder = study
    assert list(failed) == ["none-frozen"] and "no/such/folder" in failed["none-frozen"]
    rows = load_records(folder)
    assert set(rows["cell"]) == {"mae-frozen", "mae-lora-000", "mae-lora-001", "random-frozen"}
    page = write_page(folder, loaded.baseline, failed)
    assert "failed: `none-frozen`" in page and "![Points over the baseline](gains.png)" in page
    assert (folder / "gains.png").exists() and (folder / "parameters.png").exists()


def test_what_is_done_is_not_done_again(study):
    """A second run leaves rows alone; a study with another setting repeats its runs."""
    loaded, _, folder = study
    before = (folder / "runs" / "mae-frozen" / "rows.json").stat().st_mtime_ns
    assert run_study(loaded) == failures(loaded.cells())
    assert (folder / "runs" / "mae-frozen" / "rows.json").stat().st_mtime_ns == before
    changed = Study.load(folder.parent / "study.yaml", [f"output_dir={folder}", "recipe.train.num_train_epochs=2"])
    assert [is_done(cell) for cell in loaded.cells()] == [True, True, True, True, False]
    assert not any(is_done(cell) for cell in changed.cells())


def test_rows_are_those_of_the_runs(study):
    """Accuracies equal those of `results.json`; costs and seeds stand beside them; predictions add up to them."""
    rows = load_records(study[2])
    results = json.loads((study[2] / "runs" / "mae-frozen" / "results.json").read_text())
    own = rows[rows["cell"] == "mae-frozen"].set_index("name")
    for head in results["heads"]:
        row = own.loc[head["name"]]
        assert row["test"] == pytest.approx(head["test"]["top1"]) and row["seed"] == head["seed"]
        assert row["trained_parameters"] == head["trainable_parameters"] and row["multiply_adds"] > 0
    images = pd.read_parquet(study[2] / "images.parquet")
    found = images[images["cell"] == "mae-frozen"].groupby("head")["correct"].mean() * 100
    assert all(found[name] == pytest.approx(own.loc[name, "test"]) for name in own.index)


def test_the_summary_is_over_seeds_and_by_image(study):
    """Means and deviations are those of the selected rate; gains and errors follow from the same images."""
    summary = load_summary(study[2], "linear@last")
    rows = load_records(study[2])
    table = summary.table.set_index(["backbones", "adaptation", "head"])
    ep = table.loc[("mae", "frozen", "ep4")]
    chosen = rows[(rows["cell"] == "mae-frozen") & (rows["head"] == "ep4") & rows["is_selected"]]
    assert len(chosen) == 2 and chosen["learning_rate"].nunique() == 1
    assert ep["test"] == pytest.approx(chosen["test"].mean()) and ep["deviation"] == pytest.approx(chosen["test"].std())
    images = pd.read_parquet(study[2] / "images.parquet").query("cell == 'mae-frozen'")
    base = rows[(rows["cell"] == "mae-frozen") & (rows["head"] == "linear@last") & rows["is_selected"]]
    right = [images[images["head"].isin(part["name"])].groupby("row")["correct"].mean() for part in (chosen, base)]
    gaps = right[0] - right[1]
    assert ep["gain"] == pytest.approx(100 * gaps.mean())
    assert ep["error"] == pytest.approx(100 * gaps.std(ddof=1) / np.sqrt(len(gaps)), rel=0.02)
    assert table.loc[("mae", "lora", "ep4"), "repeats"] == 2


def test_tables_have_three_forms(study):
    """Heads by backbone, with parameters; the same in Markdown, LaTeX and CSV; an unknown axis is an error."""
    summary = load_summary(study[2])
    table = accuracy_table(summary)
    assert list(table.columns) == ["adaptation", "head", "parameters", "mae", "random"]
    assert render(table, "markdown").startswith("| adaptation | head | parameters | mae | random |\n| --- | ---: |")
    assert r"\begin{tabular}" in render(table, "latex") and render(table, "csv").startswith("adaptation,head,")
    assert "multiply-adds per image" in costs_table(summary)
    with pytest.raises(ValueError, match="Unknown axis 'backbone'. Did you mean 'backbones'"):
        accuracy_table(summary, "backbone")
    with pytest.raises(ValueError, match="Unknown baseline 'ep'"):
        load_summary(study[2], "ep")


def test_protocols_are_not_mixed(study, tmp_path):
    """Frozen and adapted heads, and other splits, are ranked apart; ranks are by test; rows say how to repeat them."""
    groups = rank(collect([str(study[2]), "model_cards/quickstart.json"]))
    titles = [title for title, _ in groups]
    assert [("frozen" in title, "lora" in title) for title in titles] == [(True, False), (False, True), (True, False)]
    for _, table in groups:
        assert table["test"].is_monotonic_decreasing and table["rank"].iloc[0] == 1
    text = leaderboard_markdown(groups)
    assert "attentive-probes train" in text and "| 1 | embedded:mae-tiny-fashion |" in text
    with pytest.raises(ValueError, match="neither the folder of a run"):
        collect([str(tmp_path / "nothing")])


def test_what_there_is_no_data_for_is_not_drawn(tmp_path):
    """A single run of heads that read no block has no picture by block, by shots, of gains or of ranks."""
    rows = [{"head": head, "test": 50.0, "is_selected": True, "validation": 1.0, "tokens": "patches",
             "learning_rate": 0.1, "trained_parameters": 10} for head in "ab"]  # fmt: skip
    assert draw_study(summarize(pd.DataFrame(rows)), tmp_path) == ["parameters.png", "pairs.png"]


def test_ranks_are_tested_by_friedman():
    """Of heads in a fixed order over eight runs the p-value is that of the closed formula; too few runs are refused."""
    rows = [
        {"data": f"set{run}", "head": head, "test": 50 + place + 10 * run, "is_selected": True, "validation": 0.0,
         "tokens": "patches", "learning_rate": 0.1}
        for run in range(8) for place, head in enumerate("abc")
    ]  # fmt: skip
    table, p = ranks_test(summarize(pd.DataFrame(rows)))
    assert table.shape == (8, 3) and p == pytest.approx(np.exp(-16 / 2))  # chi-square of 16 with two degrees
    with pytest.raises(ValueError, match="two runs and three heads"):
        ranks_test(summarize(pd.DataFrame(rows[:3])))


def test_settings_are_selected_by_their_mean_over_seeds():
    """A rate with one lucky seed loses to the better mean; errors are selected from below; a failed seed is no luck."""
    rows = pd.DataFrame(
        [("a", 0.1, 90.0), ("a", 0.1, 80.0), ("a", 0.2, 86.0), ("a", 0.2, 87.0), ("a", 0.3, 99.0), ("a", 0.3, None)],
        columns=["head", "learning_rate", "validation"],
    )
    assert mark_selected(rows, [])["is_selected"].tolist() == [False, False, True, True, False, False]
    errors = mark_selected(rows[:4].assign(metric="mean_absolute_error"), [])
    assert errors["is_selected"].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "needs the keys of a recipe"),
        ("recipe: {}\nvari: {}", "Unknown key 'vari'. Did you mean 'vary'"),
        (STUDY.replace("backbones", "backbone_name"), "column of results"),
        (STUDY.replace("skip: [{adaptation", "skip: [{adaption"), "Unknown axis in skip: 'adaption'"),
        (STUDY.replace("backbone.random_weights", "backbone.random"), "{'backbones': 'random', 'adapt"),
        (STUDY.replace("taps: [block:1, last]", "taps: []"), "but `taps` is empty"),
        (STUDY.replace("pooling: ep,", "pooling: epp,"), "Did you mean 'ep'"),
        (STUDY.replace("backbones: {mae: ,", "backbones: {mae: , 'm e': , 'm/e': ,"), "have the same name"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_before_any_run(text, message, tmp_path):
    """Unknown keys, axes and entries, wrong recipes and names that collide are errors that say which."""
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Study.load(tmp_path / "study.yaml")
    with pytest.raises(ValueError, match="There is no study"):
        Study.load(tmp_path / "other.yaml")


def test_runs_travel_to_other_processes(study):
    """A run is what it was after pickling, which is how jobs receive it."""
    cell = study[0].cells()[1]
    assert pickle.loads(pickle.dumps(cell)) == cell and identity(pickle.loads(pickle.dumps(cell)).recipe)


JOBS = """
recipe:
  backbone: {name: embedded:mae-tiny-fashion}
  data: {dataset: embedded:fashion-mnist, train_split: "validation[:100]", validation_split: "validation[200:250]",
         test_split: "test[:50]", augmentation: null, tokens: cached}
  heads: {mean: {pooling: mean}, ep4: {pooling: ep, options: {num_queries: 4}}}
  train: {num_train_epochs: 1, batch_size: 50}
vary: {seeds: {one: , two: {train.seed: 1}}}
workers: {cluster: local, timeout_min: 10}
"""


@pytest.mark.slow
def test_runs_can_be_jobs(tmp_path):
    """With workers, runs are jobs of submitit, here processes of this machine; the tables are the same."""
    (tmp_path / "study.yaml").write_text(JOBS)
    assert run_study(Study.load(tmp_path / "study.yaml", [f"output_dir={tmp_path / 'out'}"])) == {}
    assert set(load_records(tmp_path / "out")["head"]) == {"mean", "ep4"}
