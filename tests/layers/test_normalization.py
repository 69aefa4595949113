import pytest
import torch

from attentive_probes.layers.normalization import BatchNorm, build_feature_norm


@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_is_pytorchs(affine):
    """Same outputs, gradients and running statistics as BatchNorm1d over several steps, in both modes."""
    torch.manual_seed(0)
    ours, reference = BatchNorm(6, affine), torch.nn.BatchNorm1d(6, eps=1e-6, affine=affine)
    for _ in range(3):
        features = torch.randn(5, 6) * 3 + 1
        a, b = features.clone().requires_grad_(), features.clone().requires_grad_()
        ours(a).pow(3).sum().backward()
        reference(b).pow(3).sum().backward()
        assert torch.allclose(a.grad, b.grad, atol=1e-4)
    features = torch.randn(4, 6)
    assert torch.allclose(ours.eval()(features), reference.eval()(features), atol=1e-6)
    assert ours.state_dict().keys() == reference.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert torch.allclose(value, reference.state_dict()[key], atol=1e-6), key


def test_one_image_trains_no_statistics():
    """A training batch of one is refused; evaluation of one image works."""
    norm = BatchNorm(4)
    with pytest.raises(ValueError, match="batch of one image"):
        norm(torch.randn(1, 4))
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(1, 4)).shape == (1, 4)


@pytest.mark.parametrize("name", ["batchnorm", "batchnorm_affine", "layernorm", "none"])
def test_every_norm_keeps_shape_and_precision(name):
    """Each choice maps (B, F) to (B, F)."""
    norm = build_feature_norm(name, 6).to(torch.bfloat16)
    assert norm(torch.randn(3, 6).bfloat16()).dtype == torch.bfloat16
