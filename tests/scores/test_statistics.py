import numpy as np
import pytest
import torch
from scipy.stats import binom

from attentive_probes.problems import find_problem
from attentive_probes.problems.target_scores import TargetScores
from attentive_probes.scores.class_sums import score_classes
from attentive_probes.scores.statistics import compare_proportions, holm, proportion_interval


@pytest.mark.parametrize(("share", "total"), [(0.98, 100), (0.99, 200), (0.95, 50), (0.9, 1000), (1.0, 20), (0.0, 20)])
def test_intervals_of_accuracies_cover(share, total):
    """The true accuracy lies in the interval about 95 times in 100, near 100% too; no interval is a point."""
    counts = np.arange(total + 1)
    ends = np.array([proportion_interval(int(count), total) for count in counts])
    covers = (ends[:, 0] <= share) & (share <= ends[:, 1])
    assert binom.pmf(counts, total, share)[covers].sum() >= 0.91
    assert (ends[:, 0] < ends[:, 1]).all() and ends.min() >= 0 and ends.max() <= 1
    assert proportion_interval(20, 20) == (pytest.approx(0.8389, abs=1e-4), 1.0)  # by R's and statsmodels' too


def truths(both, gains, losses, neither):
    first = np.repeat([True, True, False, False], (both, gains, losses, neither))
    return first, np.repeat([True, False, True, False], (both, gains, losses, neither))


def test_paired_differences():
    """Values worked out by hand from the formulas: McNemar's exact p by statsmodels, an interval without variation."""
    found = compare_proportions(*truths(36, 12, 2, 0))
    assert (found.mean, found.p) == (pytest.approx(0.2), pytest.approx(0.012939453125))
    assert 0 < found.low < 0.2 < found.high < 0.4
    same = compare_proportions(*truths(54, 0, 0, 0))
    assert (same.mean, same.p) == (0, 1)
    assert (same.low, same.high) == (pytest.approx(-0.0664, abs=1e-4), pytest.approx(0.0664, abs=1e-4))
    mirrored = compare_proportions(*reversed(truths(36, 12, 2, 0)))
    assert mirrored[:3] == (pytest.approx(-found.mean), pytest.approx(-found.high), pytest.approx(-found.low))
    with pytest.raises(ValueError, match="the same images"):
        compare_proportions(np.ones(3), np.ones(4))


@pytest.mark.parametrize("shares", [(0.9, 0.04, 0.02, 0.04), (0.97, 0.01, 0.01, 0.01), (0.5, 0.2, 0.1, 0.2)])
def test_intervals_of_differences_cover(shares):
    """The true difference lies in the interval about 95 times in 100, at 100 images, for like and unlike heads."""
    rng = np.random.default_rng(0)
    tables = rng.multinomial(100, shares, size=600)
    found = [compare_proportions(*truths(*table)) for table in tables]
    covered = np.mean([each.low <= shares[1] - shares[2] <= each.high for each in found])
    assert 0.92 <= covered <= 1


def test_pairing_narrows_the_interval():
    """Two heads that fail on the same hard images differ surely, though their intervals overlap."""
    hard = np.arange(1000) % 5 == 0
    first, second = ~hard, ~hard & (np.arange(1000) % 50 != 1)
    found = compare_proportions(first, second)
    assert found.mean == pytest.approx(0.02) and 0 < found.low < found.mean < found.high and found.p < 1e-4
    assert proportion_interval(first.sum(), 1000)[0] < proportion_interval(second.sum(), 1000)[1]


def test_correction_for_many_comparisons():
    """As statsmodels has it; of 31 comparisons without a difference at most one run in twenty finds one."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    rng = np.random.default_rng(0)
    found = [min(holm(list(rng.random(31)))) < 0.05 for _ in range(1000)]
    assert np.mean(found) < 0.07


@pytest.mark.parametrize(
    ("problem_type", "metric"),
    [
        ("multi_label_classification", "mean_average_precision"),
        ("regression", "mean_absolute_error"),
        pytest.param("regression", "r2", marks=pytest.mark.slow),
    ],
)
def test_other_problems_have_intervals_and_comparisons(problem_type, metric):
    """Bootstrap over images, the same draws for both heads; a better head is told from a worse one."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(300, 3, generator=generator) > 0.6).float()
    noise = torch.randn(300, 3, generator=generator)
    good, bad = (TargetScores(labels + spread * noise, labels, find_problem(problem_type)) for spread in (0.5, 2.0))
    found = good.test_metrics(bad)
    low, high = found[f"{metric}_interval"]
    assert low < found[metric] < high
    mean, low, high = found[f"{metric}_difference"]
    assert low < mean < high and (low > 0 or high < 0) and found[f"{metric}_p"] < 0.01
    perfect = TargetScores(labels, labels, find_problem(problem_type)).test_metrics(bad)
    assert f"{metric}_interval" not in perfect  # draws that are all alike tell nothing


def test_one_image_is_evaluated():
    """An accuracy of one image has a wide interval; no metric but that is refused."""
    one = score_classes(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    low, high = one.test_metrics(one)["top1_interval"]
    assert low < 25 and high == 100


def test_no_number_is_no_class():
    """Scores that are no numbers have no metric."""
    scores = score_classes(torch.full((4, 2), torch.nan), torch.tensor([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="Scores of 4 of 4 images are no numbers"):
        scores.metrics()
    assert not scores.are_finite
