import pytest
import torch

from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import build_pooling, pool_together
from attentive_probes.tokens import SequenceLayout


def uneven_tokens() -> torch.Tensor:
    """Tokens with large and uneven channel means, as vision transformers have them."""
    torch.manual_seed(0)
    return torch.randn(3, 7, 16) * (1 + torch.arange(16)) + 20 * torch.randn(16)


def test_moments_are_those_of_the_definitions():
    """Per token and per channel, against float64."""
    tokens = uneven_tokens()
    statistics, exact = TokenStatistics(tokens), tokens.double()
    assert torch.allclose(statistics.token_mean.double(), exact.mean(-1), rtol=1e-5, atol=1e-5)
    expected = (exact.var(-1, correction=0) + 1e-5).rsqrt()
    assert torch.allclose(statistics.layer_scale(1e-5).double(), expected, rtol=1e-5)
    mean, variance = statistics.channel_moments()
    assert torch.allclose(mean.double(), exact.flatten(0, 1).mean(0), rtol=1e-5)
    assert torch.allclose(variance.double(), exact.flatten(0, 1).var(0, correction=0), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_of_half_precision_tokens_are_float32(dtype):
    """The tokens are rounded, their moments are not."""
    tokens = uneven_tokens().to(dtype)
    statistics = TokenStatistics(tokens)
    assert statistics.layer_scale(1e-6).dtype == torch.float32
    assert torch.allclose(statistics.token_mean, tokens.float().mean(-1), rtol=1e-5, atol=1e-4)


def test_moments_are_computed_once_for_all_heads(monkeypatch):
    """Heads with LayerNorms of their own read the tokens once for their moments."""
    layout = SequenceLayout(7)
    poolings = [
        build_pooling(name, 16, layout, {"num_attention_heads": 4}).eval() for name in ("cae", "alf", "jepa", "cae")
    ]
    calls = []
    vector_norm = torch.linalg.vector_norm
    monkeypatch.setattr(torch.linalg, "vector_norm", lambda *a, **k: calls.append(1) or vector_norm(*a, **k))
    pool_together(poolings, TokenStatistics(uneven_tokens()))
    assert len(calls) == 1
