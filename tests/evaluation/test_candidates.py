import numpy as np
import pytest

from attentive_probes.evaluation.runs.candidates import Candidate, choose
from attentive_probes.scores.statistics import clustered_error, clustered_interval, proportion_interval


def candidate(name, hits, parameters=100, total=200, **options):
    """One that is right about the first images."""
    correct = np.zeros((1, total), bool)
    correct[0, :hits] = True
    return Candidate(name, name, parameters, correct, **options)


def test_a_small_one_wins_within_one_standard_error():
    """Three images behind of 200, all of the same kind: within an error of 1.7; five are not, and the best wins."""
    best = candidate("best", 160, 10_000)
    assert choose([best, candidate("small", 158)]).winner == "best"  # 2 behind, error 1.4: not within one
    close = candidate("close", 159)
    choice = choose([best, close])
    assert (choice.winner, choice.best) == ("close", "best") and "within one standard error" in choice.sentence
    assert choose([best, close], one_standard_error=False).winner == "best"
    nearly = candidate("nearly as small", 160, 390)
    assert choose([best, close, nearly]).winner == "nearly as small"  # at most four times the smallest: the better one


def test_what_cannot_win_competes_all_the_same():
    """k-NN stands first in the table, and the best head is selected."""
    choice = choose([candidate("knn", 190, 0, can_win=False), candidate("ep", 180)])
    assert choice.winner == "ep" and choice.standings[0].name == "knn" and choice.standings[0].behind < 0
    with pytest.raises(ValueError, match="None of the candidates"):
        choose([candidate("knn", 3, can_win=False)])


def test_which_cannot_be_told_from_the_best():
    """Far behind is told apart, a coin's throw is not; the p-values are corrected for their number."""
    others = [candidate(str(i), 100) for i in range(3)]
    near = Candidate("near", "near", 100, np.roll(candidate("", 163).correct, 15, axis=1))
    choice = choose([candidate("best", 165), near, *others])
    assert set(choice.indistinguishable) == {"best", "near"}
    assert "2 of 5 candidates cannot be told" in choice.sentence


def test_groups_make_it_less_sure():
    """Images that come ten at a time, all right or all wrong, are worth a tenth: the error is that of the groups."""
    rng = np.random.default_rng(0)
    by_group = rng.random(50) < 0.7
    groups, correct = np.repeat(np.arange(50), 10), np.repeat(by_group, 10).astype(float)
    expected = by_group.std(ddof=1) / np.sqrt(50)
    assert clustered_error(correct, groups) == pytest.approx(expected, rel=1e-6)
    assert clustered_error(correct) < 0.4 * expected
    low, high = clustered_interval(correct, groups)
    few = proportion_interval(int(by_group.sum()), 50)
    assert (low, high) == pytest.approx(few, abs=0.01)
    alone = np.arange(500)
    assert clustered_interval(correct, alone) == pytest.approx(proportion_interval(int(correct.sum()), 500), abs=2e-3)


def test_clustered_intervals_cover():
    """Of 400 draws of 40 groups, 95% intervals hold the true share in 90 to 99%; plain ones in far fewer."""
    rng = np.random.default_rng(1)
    hits, plain, groups = 0, 0, np.repeat(np.arange(40), 12)
    for _ in range(400):
        shares = rng.beta(2, 1, 40)  # of mean 2/3
        correct = rng.random(480) < shares[groups]
        low, high = clustered_interval(correct, groups)
        hits += low <= 2 / 3 <= high
        low, high = proportion_interval(int(correct.sum()), 480)
        plain += low <= 2 / 3 <= high
    assert 360 <= hits <= 396 and plain < 330
