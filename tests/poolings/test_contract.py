"""What every pooling promises, whatever it does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attentive_probes.poolings import POOLINGS, build_pooling, pool_together, pooling_options
from attentive_probes.token_statistics import TokenStatistics
from attentive_probes.tokens import SequenceLayout

WIDTH, GRID = 32, (3, 4)
LAYOUT = SequenceLayout(12, GRID)


# Options that make a pooling fit the small width, and variants that take another path.
VARIANTS = {name: (name, {}) for name in POOLINGS} | {
    "ep-bias": ("ep", {"num_queries": 4, "d_out": 2, "bias": True}),
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


def build(name: str, width: int = WIDTH, layout: SequenceLayout = LAYOUT, heads: int | None = None) -> torch.nn.Module:
    torch.manual_seed(0)
    pooling_name, options = VARIANTS[name]
    if heads is not None and "num_attention_heads" in pooling_options(pooling_name):
        options = {**options, "num_attention_heads": heads}
    pooling = build_pooling(pooling_name, width, layout, options).eval()
    for parameter in pooling.parameters():  # away from zero starts and tiny scales, so that every part matters
        torch.nn.init.normal_(parameter, mean=0.2 * (parameter.ndim == 1), std=parameter.shape[-1] ** -0.5)
    return pooling


def depends_on_order(name: str, pooling: torch.nn.Module) -> bool:
    return pooling.order_matters or VARIANTS[name][1].get("cond") == "pe"


@every_pooling
@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    width=st.sampled_from([32, 64]),
    heads=st.sampled_from([1, 2, 8]),
)
def test_shapes(name, batch, grid, width, heads):
    """Any batch, grid (one token, too), width and heads: features (B, F), attention (B, M, T) of the promised kind."""
    length = grid[0] * grid[1]
    pooling = build(name, width, SequenceLayout(length, grid), heads)
    features, attention = pooling(torch.randn(batch, length, width))
    assert features.shape == (batch, pooling.num_features)
    assert attention.shape[::2] == (batch, length)
    assert (attention >= 0).all()
    total = attention.sum(-1)
    if pooling.attention_kind == "distribution":
        assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
    elif pooling.attention_kind == "partial":
        assert (total < 1).all()
    else:
        assert pooling.attention_kind == "gates"


@every_pooling
def test_gradients_reach_every_parameter(name):
    """No parameter is dead, and tokens get a gradient too."""
    pooling = build(name)
    tokens = torch.randn(2, 12, WIDTH, requires_grad=True)
    pooling(tokens).features.square().sum().backward()
    assert tokens.grad.abs().sum() > 0
    for key, parameter in pooling.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@every_pooling
def test_order_of_tokens(name):
    """Where order does not matter, shuffled tokens give the same features and shuffled attention."""
    pooling = build(name)
    tokens, order = torch.randn(2, 12, WIDTH), torch.randperm(12)
    plain, shuffled = pooling(tokens), pooling(tokens[:, order])
    if depends_on_order(name, pooling):
        assert not torch.allclose(plain.features, shuffled.features, atol=1e-4)
    else:
        assert torch.allclose(plain.features, shuffled.features, atol=1e-5)
        assert torch.allclose(plain.attention[..., order], shuffled.attention, atol=1e-6)


@every_pooling
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    """Half precision stays close to float32."""
    pooling, tokens = build(name), torch.randn(2, 12, WIDTH)
    expected = pooling(tokens).features
    actual = pooling.to(dtype)(tokens.to(dtype)).features
    assert actual.dtype == dtype
    assert torch.allclose(actual.float(), expected, atol=0.05, rtol=0.05)


@every_pooling
def test_together_is_alone(name):
    """Sharing one call with other poolings changes nothing, whatever their norms, biases and extra tokens."""
    tokens = torch.randn(2, 12, WIDTH)
    poolings = [build("ep"), build(name), build("cait"), build("cae"), build("abmilp-pe")]
    for together, pooling in zip(pool_together(poolings, TokenStatistics(tokens)), poolings, strict=True):
        alone = pooling(tokens)
        assert torch.allclose(together.features, alone.features, atol=1e-6)
        assert torch.allclose(together.attention, alone.attention, atol=1e-6)


@every_pooling
def test_compiles_and_exports(name):
    """torch.compile sees one graph; torch.export takes any batch size."""
    torch._dynamo.reset()  # poolings share one `forward`, and dynamo counts its variants
    pooling, tokens = build(name), torch.randn(2, 12, WIDTH)
    expected = pooling(tokens).features
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(tokens).features, expected, atol=1e-6)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(pooling, (tokens,), dynamic_shapes=({0: batch},)).module()
    assert torch.allclose(exported(tokens.repeat(3, 1, 1)).features[:2], expected, atol=1e-6)


@every_pooling
def test_describes_itself(name):
    """Paper, docstring and costs are there for listings and model cards."""
    pooling = build(name)
    assert pooling.paper.startswith("https://")
    assert pooling.__doc__
    with torch.device("meta"):  # at the size of a ViT-B, folding never costs more
        textbook, folded = build_pooling(
            VARIANTS[name][0], 768, SequenceLayout(196, (14, 14)), VARIANTS[name][1]
        ).multiply_adds()
    assert 0 <= folded <= textbook
    with pytest.raises(ValueError, match="option"):
        build_pooling(VARIANTS[name][0], WIDTH, LAYOUT, {"no_such_option": 1})


@every_pooling
def test_widths_that_do_not_divide_are_named(name):
    """Attention heads and queries that do not divide the width are an error with the counts that would do."""
    options = pooling_options(VARIANTS[name][0])
    if name == "alf":
        with pytest.raises(ValueError, match="is not between 1 and the width"):
            build_pooling("alf", WIDTH, LAYOUT, {"num_attention_heads": 33})
    elif "num_attention_heads" in options and name != "coca":
        with pytest.raises(ValueError, match=r"does not divide the width 32; choose one of \[1, 2, 4"):
            build_pooling(VARIANTS[name][0], WIDTH, LAYOUT, {"num_attention_heads": 5})
    else:
        build_pooling(VARIANTS[name][0], 33, LAYOUT, {"num_queries": 3} if "num_queries" in options else {})


@every_pooling
def test_saved_is_loaded(name):
    """A state dict is complete: another instance with it gives the same numbers."""
    tokens = torch.randn(2, 12, WIDTH)
    first = build(name).train()
    first(tokens)
    torch.manual_seed(1)
    second = build_pooling(VARIANTS[name][0], WIDTH, LAYOUT, VARIANTS[name][1])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(tokens).features, second.eval()(tokens).features)


def test_unknown_names():
    """Unknown poolings and options name the nearest valid one."""
    with pytest.raises(ValueError, match="Unknown pooling 'epp'. Did you mean 'ep'"):
        build_pooling("epp", WIDTH, LAYOUT, {})
    with pytest.raises(ValueError, match="Did you mean 'num_queries'"):
        build_pooling("ep", WIDTH, LAYOUT, {"num_query": 4})
    with pytest.raises(ValueError, match="takes no options"):
        build_pooling("mean", WIDTH, LAYOUT, {"num_queries": 4})
    assert pooling_options("ep") == {"num_queries": 32, "d_out": 1, "bias": False}
