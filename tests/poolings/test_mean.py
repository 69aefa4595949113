import torch

from attentive_probes.poolings.mean import MeanPooling
from attentive_probes.tokens import SequenceLayout


def test_mean_is_the_average():
    """Features are the plain average; one token is passed through unchanged."""
    tokens = torch.randn(3, 7, 5)
    pooling = MeanPooling(5, SequenceLayout(7))
    assert torch.allclose(pooling(tokens).features, tokens.mean(1), atol=1e-6)
    assert torch.equal(pooling(tokens[:, :1]).features, tokens[:, 0])
    assert not list(pooling.parameters())
