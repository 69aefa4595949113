"""What tokens added to a decision adds up to it."""

import pytest
import torch

from attentive_probes import HeadConfig
from attentive_probes.analysis.contributions import contributions, gradient_times_input
from attentive_probes.probe.head import ProbeHead
from attentive_probes.tokens import SequenceLayout

FOUR = {"num_attention_heads": 4}
LINEAR = {
    "mean": {},
    "concat": {},
    "weighted": {},
    "ep": {"num_queries": 4, "d_out": 2},
    "abmilp": {},
    "aim": FOUR,
    "cae": FOUR,
    "coca": {"num_attention_heads": 2, "head_width": 8},
    "alf": {},
}
BENT = {"siglip": FOUR, "jepa": FOUR, "cait": {}, "simpool": {}, "dinovit": FOUR}


def make_head(pooling, options, feature_norm="batchnorm", dtype=torch.float32):
    torch.manual_seed(0)
    head = ProbeHead(HeadConfig(pooling, options, feature_norm=feature_norm), 32, SequenceLayout(11, (3, 3)), 5)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for module in head.modules():
        if hasattr(module, "running_mean"):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return head.eval()


def tokens(count=6, massive=False):
    found = torch.randn(count, 11, 32, generator=torch.Generator().manual_seed(1)) + 2
    if massive:
        found[..., 3] += 300
    return found


@pytest.mark.parametrize("massive", [False, True])
@pytest.mark.parametrize("feature_norm", ["batchnorm", "batchnorm_affine", "none"])
@pytest.mark.parametrize("pooling", LINEAR)
def test_contributions_add_up_to_the_logit(pooling, feature_norm, massive):
    """All of them and the constant are the logit; the constant is the same for every image."""
    head, sequence = make_head(pooling, LINEAR[pooling], feature_norm), tokens(massive=massive)
    output = head(sequence)
    found = contributions(head, sequence)
    assert torch.equal(found.classes, output.logits.argmax(1))
    assert torch.allclose(found.logits, output.logits.gather(1, found.classes[:, None])[:, 0], rtol=1e-4, atol=1e-4)
    assert found.values.shape[::2] == (6, 11) and found.attention.shape == output.attention.shape
    total, size = found.values.sum((1, 2)) + found.constant, found.values.abs().sum((1, 2))
    assert ((total - found.logits).abs() <= 1e-4 * size).all()
    same = contributions(head, sequence, torch.full((6,), 2))
    assert (same.constant - same.constant[0]).abs().max() <= 2e-4 * size.max()
    assert torch.allclose(same.logits, output.logits[:, 2], rtol=1e-4, atol=1e-4)


def test_a_token_is_worth_what_is_lost_without_it():
    """With fixed attention, the logit falls by what a token added when it is set to zero."""
    head, sequence = make_head("ep", {"num_queries": 4}), tokens()
    found = contributions(head, sequence)
    pooled = torch.bmm(found.attention, sequence)
    without = pooled - found.attention[:, :, 4:5] * sequence[:, None, 4]
    features = head.pooling.readout(without, found.attention, None)
    from attentive_probes.poolings import Pooled

    logits = head.classify(Pooled(features, found.attention)).logits.gather(1, found.classes[:, None])[:, 0]
    assert torch.allclose(found.logits - logits, found.values[:, :, 4].sum(1), atol=1e-4)


@pytest.mark.parametrize("pooling", BENT)
def test_what_is_not_linear_says_so(pooling):
    """An MLP, a norm on features, attention from the image itself: refused, with the other name to take."""
    head, sequence = make_head(pooling, BENT[pooling]), tokens()
    with pytest.raises(ValueError, match="not linear in the tokens.*gradient_times_input"):
        contributions(head, sequence)
    found = gradient_times_input(head, sequence)
    assert found.values.shape == (6, 1, 11) and torch.isfinite(found.values).all()


def test_a_norm_on_features_is_not_linear():
    """LayerNorm depends on all of the features at once; training mode is refused as well."""
    with pytest.raises(ValueError, match="LayerNorm on its features"):
        contributions(make_head("ep", {"num_queries": 4}, "layernorm"), tokens())
    with pytest.raises(ValueError, match="eval"):
        contributions(make_head("mean", {}).train(), tokens())
