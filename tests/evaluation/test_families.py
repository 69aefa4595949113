import pytest

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.families import best_per_head, head_named
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.tables import families_table


def entry(family, rate, seed, validation, test):
    return HeadResult(
        f"{family}-lr={rate}-seed={seed}", {"pooling": family}, rate, 0.0, 1, seed, family,
        best_epoch=1, validation={"loss": 1.0, "top1": validation}, test={"top1": test},
    )  # fmt: skip


# One lucky seed at the larger rate; the smaller rate is better on average.
LUCKY = [
    entry("ep", 0.1, 0, 95.0, 70.0), entry("ep", 0.1, 1, 70.0, 72.0),
    entry("ep", 0.01, 0, 88.0, 86.0), entry("ep", 0.01, 1, 90.0, 88.0),
    entry("mean", 0.1, 0, 80.0, 79.0),
]  # fmt: skip


def results(heads):
    return SweepResults(heads, "top1", backbone={}, arguments={}, data={})


def test_settings_are_chosen_by_their_mean_over_seeds():
    """Not by the luckiest seed; test numbers are means with their spread."""
    ep, mean = best_per_head(LUCKY, "top1")
    assert (ep.name, ep.num_settings, ep.best.names) == ("ep", 2, ("ep-lr=0.01-seed=1", "ep-lr=0.01-seed=0"))
    assert (ep.best.validation, ep.best.test, ep.best.test_deviation) == (89.0, 87.0, pytest.approx(2**0.5))
    assert (mean.best.test, mean.best.test_deviation) == (79.0, None)
    assert results(LUCKY).best.name == "ep-lr=0.01-seed=1"
    written = results(LUCKY).to_json()["best_per_head"]
    assert [family["name"] for family in written] == ["ep", "mean"]
    table = families_table(results(LUCKY))
    assert list(table.columns[4].cells) == ["87.00 +- 1.41", "79.00"]


def test_names_of_heads_families_and_the_best():
    """A head is itself, a family its best setting's best seed, `best` the selected head; others are refused."""
    found = {name: head_named(name, LUCKY, "top1") for name in ("ep", "mean", "best", "ep-lr=0.1-seed=0")}
    assert found == {
        "ep": "ep-lr=0.01-seed=1",
        "mean": "mean-lr=0.1-seed=0",
        "best": "ep-lr=0.01-seed=1",
        "ep-lr=0.1-seed=0": "ep-lr=0.1-seed=0",
    }
    assert results(LUCKY).best.name == found["best"]
    with pytest.raises(ValueError, match="Unknown baseline 'epp'. Did you mean 'ep'"):
        head_named("epp", LUCKY, "top1", "baseline")


def test_a_setting_of_which_a_seed_diverged_is_not_chosen():
    """A rate that works for some seeds only ranks behind one that works for all."""
    heads = [*LUCKY[:3], HeadResult("ep-lr=0.01-seed=1", {"pooling": "ep"}, 0.01, 0.0, 1, 1, "ep", diverged=3)]
    assert results(heads).best.name == "ep-lr=0.1-seed=0"
    (family,) = best_per_head(heads, "top1")
    assert family.best.validation == 82.5


def test_comparisons_are_corrected_for_their_number():
    """Every head but the baseline, references too."""
    heads = [entry(name, 0.1, 0, 80.0, 80.0) for name in ("a", "b", "c", "d")]
    for head, p in zip(heads, (1.0, 0.01, 0.04, 0.03), strict=True):
        head.test["top1_p"] = p
    found = results(heads)
    found.baseline = heads[0].name
    found.correct_for_number()
    assert [head.test.get("top1_p_holm") for head in heads] == [None, *map(pytest.approx, (0.03, 0.06, 0.06))]
