import pytest

from attentive_probes.evaluation.results import HeadResult
from attentive_probes.evaluation.seeds import over_seeds


def entry(name, rate, seed, top1):
    return HeadResult(name, {"pooling": "ep"}, rate, 0.0, 1, seed, test={"top1": top1} if top1 else None)


def test_heads_that_differ_by_seed_alone():
    """Mean and sample deviation per group; heads alone in their group or without a test are left out."""
    heads = [entry("a", 0.1, 0, 80.0), entry("b", 0.1, 1, 82.0), entry("c", 0.2, 0, 70.0), entry("d", 0.1, 2, None)]
    (summary,) = over_seeds(heads)
    assert summary.names == ("a", "b")
    assert (summary.mean, summary.deviation) == (81.0, pytest.approx(2**0.5))
