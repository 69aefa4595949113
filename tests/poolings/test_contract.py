"""What every pooling promises, whatever it does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attentive_probes.poolings import POOLINGS, build_pooling, pooling_options
from attentive_probes.testing import CHECKS, Subject, check_shapes
from attentive_probes.tokens import SequenceLayout

WIDTH, LAYOUT = 32, SequenceLayout(12, (3, 4))


# Options that make a pooling fit the small width, and variants that take another path.
VARIANTS = {name: (name, {}) for name in POOLINGS} | {
    "ep-bias": ("ep", {"num_queries": 4, "d_out": 2, "bias": True}),
    "ep-elastic": ("ep", {"num_queries": 4, "elastic": 8}),
    "alf_ep-items": ("alf_ep", {"num_queries": 2, "d_out": 2, "num_attention_heads": 2}),
    "combo": ("combo", {"hidden": 16, "num_attention_heads": 2}),
    "prototypes-real": ("prototypes", {"num_prototypes": 7, "binary": False}),
    "jepa-deep": ("jepa", {"num_attention_heads": 4, "num_self_blocks": 2, "output_map": False}),
    "aim": ("aim", {"num_attention_heads": 4}),
    "aim-queries": ("aim", {"num_attention_heads": 2, "num_queries": 3}),
    "jepa": ("jepa", {"num_attention_heads": 4}),
    "alf": ("alf", {"num_attention_heads": 3}),
    "cait-two": ("cait", {"num_blocks": 2}),
    "simpool-heads": ("simpool", {"num_attention_heads": 4, "qkv_bias": True}),
    "abmilp-deep": ("abmilp", {"depth": 3, "activation": "tanh"}),
    "abmilp-map": ("abmilp", {"self_attention": "map", "cond": "pe"}),
    "abmilp-both": ("abmilp", {"self_attention": "both", "depth": 2}),
    "abmilp-pe": ("abmilp", {"cond": "pe"}),
}
every_pooling = pytest.mark.parametrize("name", VARIANTS)


# Compiling and exporting take most of the time: once per pooling here, its other variants among the slow tests.
LONG = ("compiles", "exports")
FIRST = {pooling: next(name for name, (other, _) in VARIANTS.items() if other == pooling) for pooling in POOLINGS}
PROMISES = [
    pytest.param(name, check, marks=[pytest.mark.slow] if check in LONG and FIRST[pooling] != name else [])
    for name, (pooling, _) in VARIANTS.items()
    for check in CHECKS
]


@pytest.mark.parametrize(("name", "check"), PROMISES)
def test_promises(name, check):
    """Each of our poolings keeps what `check_pooling` asks of those of others."""
    CHECKS[check](Subject(*VARIANTS[name]))


@every_pooling
@settings(max_examples=15, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    width=st.sampled_from([32, 64]),
    heads=st.sampled_from([1, 2, 8]),
)
def test_shapes(name, grid, width, heads):
    """Any grid (one token, too), width and heads: features (B, F), attention (B, M, T) of the promised kind."""
    pooling, options = VARIANTS[name]
    if "num_attention_heads" in pooling_options(pooling):
        options = {**options, "num_attention_heads": heads}
    check_shapes(Subject(pooling, options, width, grid))


@pytest.mark.parametrize("name", POOLINGS)
def test_papers(name):
    """Ours all come from a paper."""
    assert POOLINGS[name].paper.startswith("https://")


@every_pooling
def test_widths_that_do_not_divide_are_named(name):
    """Attention heads and queries that do not divide the width are an error with the counts that would do."""
    options = pooling_options(VARIANTS[name][0])
    if name in ("alf", "alf_ep", "alf_ep-items"):
        with pytest.raises(ValueError, match="is not between 1 and the width"):
            build_pooling(VARIANTS[name][0], WIDTH, LAYOUT, {"num_attention_heads": 33})
    elif "num_attention_heads" in options and name != "coca":
        with pytest.raises(ValueError, match=r"does not divide the width (32|128); choose one of \[1, 2, 4"):
            build_pooling(VARIANTS[name][0], WIDTH, LAYOUT, {"num_attention_heads": 5})
    else:
        build_pooling(VARIANTS[name][0], 33, LAYOUT, {"num_queries": 3} if "num_queries" in options else {})


def test_unknown_names():
    """Unknown poolings and options name the nearest valid one."""
    with pytest.raises(ValueError, match="Unknown pooling 'epp'. Did you mean 'ep'"):
        build_pooling("epp", WIDTH, LAYOUT, {})
    with pytest.raises(ValueError, match="Did you mean 'num_queries'"):
        build_pooling("ep", WIDTH, LAYOUT, {"num_query": 4})
    with pytest.raises(ValueError, match="takes no options"):
        build_pooling("mean", WIDTH, LAYOUT, {"num_queries": 4})
    assert pooling_options("ep") == {"num_queries": 32, "d_out": 1, "bias": False, "elastic": 1}
