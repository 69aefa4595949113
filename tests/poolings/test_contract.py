"""What every pooling promises, whatever it does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attentive_probes.poolings import POOLINGS, build_pooling, pool_together, pooling_options
from attentive_probes.tokens import SequenceLayout

WIDTH, GRID = 32, (3, 4)
LAYOUT = SequenceLayout(12, GRID)
every_pooling = pytest.mark.parametrize("name", POOLINGS)


def build(name: str, width: int = WIDTH, layout: SequenceLayout = LAYOUT) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_pooling(name, width, layout, {}).eval()


@every_pooling
@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), length=st.integers(1, 9), width=st.sampled_from([32, 64]))
def test_shapes(name, batch, length, width):
    """Any batch, length and width: features (B, F), attention (B, M, T) whose rows sum to 1."""
    pooling = build(name, width, SequenceLayout(length))
    features, attention = pooling(torch.randn(batch, length, width))
    assert features.shape == (batch, pooling.num_features)
    assert attention.shape[::2] == (batch, length)
    assert torch.allclose(attention.sum(-1), torch.ones(attention.shape[:2]), atol=1e-5)


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
    if pooling.order_matters:
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
    """Sharing one call with other poolings changes nothing."""
    tokens = torch.randn(2, 12, WIDTH)
    poolings = [build("ep"), build(name), build("ep")]
    for together, pooling in zip(pool_together(poolings, tokens), poolings, strict=True):
        alone = pooling(tokens)
        assert torch.allclose(together.features, alone.features, atol=1e-6)
        assert torch.allclose(together.attention, alone.attention, atol=1e-6)


@every_pooling
def test_compiles_and_exports(name):
    """torch.compile sees one graph; torch.export takes any batch size."""
    pooling, tokens = build(name), torch.randn(2, 12, WIDTH)
    expected = pooling(tokens).features
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(tokens).features, expected, atol=1e-6)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(pooling, (tokens,), dynamic_shapes=({0: batch},)).module()
    assert torch.allclose(exported(tokens.repeat(3, 1, 1)).features[:2], expected, atol=1e-6)


@every_pooling
def test_describes_itself(name):
    """Paper and docstring are there for listings and model cards."""
    assert POOLINGS[name].paper.startswith("https://")
    assert POOLINGS[name].__doc__
    with pytest.raises(ValueError, match="option"):
        build_pooling(name, WIDTH, LAYOUT, {"no_such_option": 1})


def test_unknown_names():
    """Unknown poolings and options name the nearest valid one."""
    with pytest.raises(ValueError, match="Unknown pooling 'epp'. Did you mean 'ep'"):
        build_pooling("epp", WIDTH, LAYOUT, {})
    with pytest.raises(ValueError, match="Did you mean 'num_queries'"):
        build_pooling("ep", WIDTH, LAYOUT, {"num_query": 4})
    with pytest.raises(ValueError, match="takes no options"):
        build_pooling("mean", WIDTH, LAYOUT, {"num_queries": 4})
    assert pooling_options("ep") == {"num_queries": 32, "d_out": 1, "bias": False}
