import pytest

from attentive_probes import HeadConfig, HeadRun
from attentive_probes.experiments.grid import cross

RUNS = {"ep": HeadRun(HeadConfig("ep", {"d_out": 2})), "mean": HeadRun(HeadConfig("mean"), learning_rate=0.5)}


def test_every_combination_in_order():
    """Heads outermost, then the first setting, then the next; options join those of the head."""
    runs = cross({"ep": RUNS["ep"]}, {"learning_rate": [0.1, 0.01], "options.num_queries": [4, 8], "seed": [0]})
    assert list(runs) == [
        "ep-lr=0.1-num_queries=4-seed=0", "ep-lr=0.1-num_queries=8-seed=0",
        "ep-lr=0.01-num_queries=4-seed=0", "ep-lr=0.01-num_queries=8-seed=0",
    ]  # fmt: skip
    run = runs["ep-lr=0.01-num_queries=8-seed=0"]
    assert (run.learning_rate, run.seed) == (0.01, 0)
    assert run.head == HeadConfig("ep", {"d_out": 2, "num_queries": 8})


def test_heads_and_readings_are_settings_too():
    """Any field of a head can be crossed; an empty grid changes nothing."""
    runs = cross({"mean": RUNS["mean"]}, {"tokens": [["cls"], ["mean@block:1"]], "weight_decay": [0.1]})
    assert [run.head.tokens for run in runs.values()] == [("cls",), ("mean@block:1",)]
    assert all((run.learning_rate, run.weight_decay) == (0.5, 0.1) for run in runs.values())
    assert cross(RUNS, {}) == RUNS


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"learning_rat": [0.1]}, "Did you mean 'learning_rate'"),
        ({"learning_rate": 0.1}, "must be a list"),
        ({"seed": []}, "at least one value"),
        ({"token_norm": ["l3"]}, "Unknown token_norm 'l3'"),
    ],
)
def test_malformed_grids(grid, message):
    """Every mistake is named."""
    with pytest.raises(ValueError, match=message):
        cross(RUNS, grid)
