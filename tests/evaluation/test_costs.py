from attentive_probes.evaluation.costs import head_costs
from attentive_probes.poolings import POOLINGS


def test_published_totals():
    """At ViT-B size the totals of the EP paper's table; EP as written and folded."""
    rows = {row.pooling: row for row in head_costs(768, 196, 1000)}
    assert list(rows) == list(POOLINGS)
    assert rows["mean"].parameters == 769_000
    assert rows["ep"].parameters == 1_383_400
    assert rows["ep"].multiply_adds == (120_572_928, 10_223_616)
    assert rows["cbam"].parameters == 842_828


def test_what_does_not_fit_says_why():
    """Sizes that a head cannot take are named, not left out."""
    rows = {row.pooling: row for row in head_costs(97, 12, 10)}
    assert "does not divide" in rows["ep"].problem
    assert "grid" in rows["cbam"].problem
    assert not rows["mean"].problem
