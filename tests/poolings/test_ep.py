import pytest
import torch

from attentive_probes.poolings.ep import EfficientProbing
from attentive_probes.tokens import SequenceLayout


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("d_out", [1, 2])
def test_ep_is_its_textbook_form(d_out, bias):
    """Projecting after the pooling equals projecting every token before it."""
    torch.manual_seed(0)
    pooling = EfficientProbing(24, SequenceLayout(7), num_queries=4, d_out=d_out, bias=bias)
    torch.nn.init.normal_(pooling.query)
    tokens = torch.randn(3, 7, 24)
    values = pooling.value(tokens).unflatten(-1, (4, -1))  # (B, T, Q, slice)
    attention = (pooling.query @ tokens.mT / 24**0.5).softmax(-1)
    textbook = torch.einsum("bqt,btqs->bqs", attention, values).flatten(1)
    assert torch.allclose(pooling(tokens).features, textbook, atol=1e-5)


def test_initial_distribution():
    """Queries start normal with standard deviation 0.02, values as PyTorch starts a linear layer."""
    torch.manual_seed(0)
    pooling = EfficientProbing(768, SequenceLayout(196))
    assert pooling.query.std().item() == pytest.approx(0.02, rel=0.03)
    assert pooling.value.weight.std().item() == pytest.approx((3 * 768) ** -0.5, rel=0.03)


def test_query_count_must_divide_the_width():
    """The error names the counts that would do."""
    with pytest.raises(
        ValueError, match=r"num_queries=7 does not divide .* choose one of \[1, 2, 3, 4, 6, 8, 12, 24\]"
    ):
        EfficientProbing(24, SequenceLayout(5), num_queries=7)
    with pytest.raises(ValueError, match="d_out=5 does not divide"):
        EfficientProbing(24, SequenceLayout(5), num_queries=4, d_out=5)


def test_parameter_count():
    """The published count for ViT-B: 614,400 parameters with 32 queries."""
    with torch.device("meta"):
        pooling = EfficientProbing(768, SequenceLayout(196))
    assert sum(p.numel() for p in pooling.parameters()) == 614_400
