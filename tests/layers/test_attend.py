import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attentive_probes.layers.attend import attend

sizes = st.integers(1, 6)


@settings(max_examples=30, deadline=None)
@given(batch=sizes, length=sizes, width=sizes, num_queries=sizes, scaled=st.booleans(), biased=st.booleans())
def test_attend_is_its_formula(batch, length, width, num_queries, scaled, biased):
    """Equal to the definition written with plain loops over queries, in float64 up to the float32 softmax."""
    torch.manual_seed(0)
    tokens, queries = torch.randn(batch, length, width), torch.randn(num_queries, width)
    scale = torch.rand(batch, length) + 0.5 if scaled else None
    bias = torch.randn(num_queries, length) if biased else None
    pooled, attention = attend(tokens, queries, scale, bias)
    seen = tokens if scale is None else tokens * scale[..., None]
    for m in range(num_queries):
        weights = (seen @ queries[m] + (0 if bias is None else bias[m])).softmax(-1)
        assert torch.allclose(attention[:, m], weights, atol=1e-6)
        assert torch.allclose(pooled[:, m], (weights[..., None] * seen).sum(1), atol=1e-5)


def test_queries_may_differ_per_image():
    """Queries (B, M, D) give each image its own."""
    tokens, queries = torch.randn(3, 4, 5), torch.randn(3, 2, 5)
    pooled, _ = attend(tokens, queries)
    alone = [attend(tokens[i : i + 1], queries[i])[0] for i in range(3)]
    assert torch.allclose(pooled, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_softmax_runs_in_float32(dtype):
    """Of half precision tokens, pooled tokens and attention are float32; the attention sums to 1."""
    pooled, attention = attend(torch.randn(2, 50, 8).to(dtype), torch.randn(3, 8))
    assert pooled.dtype == attention.dtype == torch.float32
    assert torch.allclose(attention.sum(-1), torch.ones(2, 3), atol=1e-6)


def test_gradients():
    """Gradients reach tokens, queries, scale and bias, equal to finite differences."""
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    queries = torch.randn(2, 4, dtype=torch.double, requires_grad=True)
    # The softmax is float32 by design, so the finite step and the tolerance are wide.
    assert torch.autograd.gradcheck(
        lambda x, q: attend(x, q)[0], (tokens, queries), eps=1e-2, atol=1e-2, rtol=1e-2, nondet_tol=1e-6
    )
