"""Prototypes: the best cosine with any token, written out."""

import pytest
import torch

from attentive_probes.poolings import build_pooling
from attentive_probes.tokens import SequenceLayout


@pytest.mark.parametrize("binary", [True, False])
def test_features_are_the_best_cosines(binary):
    """Feature j is the largest cosine of prototype j, or of its signs, with a token; gradients reach prototypes."""
    torch.manual_seed(0)
    pooling = build_pooling("prototypes", 16, SequenceLayout(6), {"num_prototypes": 5, "binary": binary})
    tokens = torch.randn(3, 6, 16)
    features, attention = pooling(tokens)
    prototypes = pooling.prototypes.sign() if binary else pooling.prototypes
    expected = torch.nn.functional.cosine_similarity(tokens[:, None], prototypes[None, :, None], dim=-1)
    assert torch.allclose(features, expected.amax(-1), atol=1e-6)
    assert torch.allclose(attention, (1 + expected) / 2, atol=1e-6)
    features.sum().backward()
    assert (pooling.prototypes.grad.abs().sum(1) > 0).all()


def test_one_event_anywhere_decides():
    """A token that is a prototype gives its feature 1, wherever it lies, however many others there are."""
    pooling = build_pooling("prototypes", 16, SequenceLayout(50), {"num_prototypes": 4})
    for place in (0, 23, 49):
        tokens = torch.zeros(1, 50, 16)
        tokens[0, place] = 3 * pooling.prototypes[2].sign()
        assert pooling(tokens).features[0, 2].item() == pytest.approx(1, abs=1e-5)
