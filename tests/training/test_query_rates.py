"""What says where to look learns at a rate of its own, and a run notes whether it moved."""

import math

import pytest
import torch

from attentive_probes import HeadConfig
from attentive_probes.evaluation.runs.attention_spread import SpreadSums, token_entropy
from attentive_probes.evaluation.runs.families import setting_key
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.experiments.grid import cross
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.poolings import POOLINGS, build_pooling
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.head_run import HeadRun
from attentive_probes.tokens import SequenceLayout
from attentive_probes.training.steps.optimizers import HeadRates, build_optimizer

LAYOUT, WIDTH = SequenceLayout(49, (7, 7)), 96
SEEKING = {
    "weighted": ["logits"], "ep": ["query"], "abmilp": ["gate.weight"], "simpool": ["query_map.weight"],
    "clip": ["query_map.bias", "query_map.weight"], "siglip": ["query"], "aim": ["query"], "cait": ["query"],
    "cbam": ["conv.weight", "fc1.weight", "fc2.weight"], "coca": ["query"], "jepa": ["query"],
    "dolg": ["score.bias", "score.weight"], "cae": ["query"], "alf": ["query"], "combo": ["query"],
    "alf_ep": ["fusion.query", "summaries.0.query"], "prototypes": ["prototypes"],
    "mean": [], "concat": [], "esimpool": [], "dinovit": [],
}  # fmt: skip
EP = HeadConfig("ep", {"num_queries": 8})


@pytest.mark.parametrize("name", POOLINGS)
def test_queries_have_a_group_of_their_own(name):
    """In every pooling, what says where to look is known, and learns at the rate of queries; the rest does not."""
    head = ProbeHead(HeadConfig(name), WIDTH, LAYOUT, 3)
    seeking = head.pooling.seeking_parameters()
    assert sorted(seeking) == SEEKING[name]
    optimizer = build_optimizer("adamw", {"it": head}, {"it": HeadRates(0.01, 0.1, 0.5)}, 0.9)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    fast = {id(p) for p in seeking.values()}
    assert {id(p) for p in head.parameters()} == rates.keys()
    assert all(rate == (0.5 if key in fast else 0.01) for key, rate in rates.items())


def test_rates_of_queries():
    """Automatic with an automatic rate, that of the head with a stated one; overridable, and around both."""
    speed = POOLINGS["ep"].query_speed
    rates = [
        HeadRun(EP, *given).rates("auto")
        for given in [("auto",), ("auto*3",), (0.1,), ("0.1",), (), (0.1, None, None, None, 0.7)]
    ]
    expected = [(0.003, 0.003 * speed), (0.009, 0.009 * speed), (0.1, 0.1), (0.1, 0.1), (0.003, 0.003 * speed)]
    assert rates == [pytest.approx(each) for each in [*expected, (0.1, 0.7)]]
    assert HeadRun(EP).rates(0.05) == (0.05, 0.05)
    assert HeadRun(EP, query_learning_rate="auto/3").rates(0.03) == pytest.approx((0.03, 0.01 * speed))
    for wrong in ("fast", "auto*0", -1.0):
        with pytest.raises(ValueError, match="query_learning_rate is"):
            HeadRun(EP, 0.1, query_learning_rate=wrong).rates("auto")


def test_grids_of_rates():
    """A grid over rates takes the queries along; one over those of queries leaves the head alone."""
    speed = POOLINGS["ep"].query_speed
    runs = cross({"ep": HeadRun(EP, "auto")}, {"learning_rate": ["auto/3", 0.5]})
    assert {name: run.rates("auto") for name, run in runs.items()} == {
        "ep-lr=0.001": pytest.approx((0.001, 0.001 * speed)), "ep-lr=0.5": (0.5, 0.5)
    }  # fmt: skip
    runs = cross({"ep": HeadRun(EP, 0.01)}, {"query_learning_rate": [0.1, 0.3]})
    assert {name: run.rates("auto") for name, run in runs.items()} == {
        "ep-qlr=0.1": (0.01, 0.1), "ep-qlr=0.3": (0.01, 0.3)
    }  # fmt: skip


def test_settings_are_told_apart_by_them():
    """Another rate of the queries is another setting; results of before, which had one rate, are as they were."""
    heads = [HeadResult("a", {"pooling": "ep"}, 0.1, 0.0, 1, query_learning_rate=rate) for rate in (None, 0.1, 0.3)]
    first, same, other = map(setting_key, heads)
    assert first == same != other


def test_gates_have_no_spread():
    """Where attention is not shared out, or is that of a plain mean, there is nothing that could be uniform."""
    found = {name for name, pooling in POOLINGS.items() if build_pooling(name, WIDTH, LAYOUT, {}).shares_out}
    assert POOLINGS.keys() - found == {"mean", "concat", "cbam", "dolg", "prototypes"}


def test_entropy_over_tokens():
    """One token, two, all of them; gates count by their shares."""
    rows = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4, [3.0] * 4])
    assert token_entropy(rows).tolist() == pytest.approx([0, math.log(2), math.log(4), math.log(4)])
    sums = SpreadSums()
    sums.add({"ep": rows[None, :2]})
    sums.add({"ep": torch.cat([rows[None, 2:]] * 3)})
    sums.add({"ep": torch.zeros(0, 2, 4)})
    spread = sums.spreads()["ep"]
    assert spread == pytest.approx((math.log(2) / 8 + 0.75 * math.log(4), math.log(4))) and not spread.is_even


RECIPE = """
backbone: {name: "embedded:mae-tiny-fashion"}
data: {dataset: "embedded:fashion-mnist", train_split: "train[:300]", validation_split: "validation[:200]",
       test_split: null, tokens: cached, augmentation: null}
heads:
  moves: {pooling: ep, options: {num_queries: 4}, tokens: ["patches@last"]}
  stays: {pooling: ep, options: {num_queries: 4}, tokens: ["patches@last"], query_learning_rate: 0.0001}
  linear: {pooling: mean}
train: {num_train_epochs: 6, batch_size: 20}
"""


@pytest.mark.slow
def test_a_head_that_does_not_attend_is_warned_about(tmp_path):
    """Entropy stands beside its bound in results and table; only the head whose queries stayed is named."""
    folders = [f"train.output_dir={tmp_path / 'run'}", f"data.cache.folder={tmp_path / 'tokens'}"]
    results = run_recipe(Recipe.of_text(RECIPE, folders))
    moves, stays, linear = (results.head(name) for name in ("moves", "stays", "linear"))
    assert linear.attention is None and linear.query_learning_rate is None
    assert moves.query_learning_rate == pytest.approx(0.003 * POOLINGS["ep"].query_speed)
    assert stays.attention.bound == pytest.approx(math.log(49)) and stays.attention.share > 0.99
    assert moves.attention.share < 0.7
    told = [text for text in results.warnings if "hardly moved" in text]
    assert len(told) == 1 and "queries of stays" in told[0] and "query_learning_rate of 0.001 instead" in told[0]
    assert [row["attention_entropy"] for row in moves.history][-1] < moves.history[0]["attention_entropy"]
    assert f"moves {moves.attention.share:.0%}, stays 100%" in results.table().caption
    assert "attention" in (tmp_path / "run" / "report.html").read_text()
