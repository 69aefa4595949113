"""Elastic EP: parts of one trained head are probes of their own."""

import pytest
import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.layers.nested import NestedDropout
from attentive_probes.poolings import Part

ELASTIC = HeadConfig("ep", {"num_queries": 4, "elastic": 8})


def probe_of(folder, head=ELASTIC):
    """A probe whose every tensor differs from its start."""
    torch.manual_seed(0)
    probe = ProbeForImageClassification.from_backbone(folder, head, num_labels=5).eval()
    for tensor in (*probe.head.parameters(), *probe.head.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand_like(tensor) + 0.1)
    probe.head.is_trained = True
    return probe


@pytest.mark.parametrize("size", [(4, 32), (4, 8), (4, 4), (2, 16), (1, 8), (1, 4), (2, 4)])
def test_a_part_is_the_whole_without_the_rest(size, tiny_backbone):
    """A shrunk probe gives the logits of the whole one with the other features at zero after the norm."""
    probe = probe_of(tiny_backbone("vit"))
    smaller = probe.shrink(*size)
    pixels = torch.randn(3, 3, *probe.backbone.geometry.image_size)
    whole = probe.head
    tokens = whole.read(probe.backbone(pixels))
    features = whole.norm(whole.pooling(tokens).features)
    kept = torch.zeros(4, 8)
    kept[: size[0], : size[1] // size[0]] = 1
    expected = whole.classifier(features * kept.flatten())
    assert torch.allclose(smaller(pixels).logits, expected, atol=1e-4)
    assert smaller.config.head_config.options == {"num_queries": size[0], "d_out": 32 // size[1]}


def test_a_part_is_saved_and_loaded(tiny_backbone, tmp_path):
    """What `shrink` returns is a probe like any other, and leaves the whole one alone."""
    probe = probe_of(tiny_backbone("vit"))
    smaller = probe.shrink(num_queries=2)
    smaller.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    pixels = torch.randn(2, 3, *probe.backbone.geometry.image_size)
    assert torch.allclose(loaded(pixels).logits, smaller(pixels).logits, atol=1e-5)
    assert (loaded.head.pooling.num_features, probe.head.pooling.num_features) == (16, 32)


def test_parts_that_were_not_trained_are_refused(tiny_backbone):
    """Sizes that no image was judged by, heads that are not elastic, and options that do not fit are errors."""
    probe = probe_of(tiny_backbone("vit"))
    with pytest.raises(ValueError, match=r"in the parts .*\(1, 4\).* not in \(3, 24\)"):
        probe.shrink(3, 24)
    with pytest.raises(ValueError, match="with the option elastic"):
        probe_of(tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4})).shrink(2)
    with pytest.raises(ValueError, match="elastic=3 is no power of two"):
        probe_of(tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4, "elastic": 3}))
    with pytest.raises(ValueError, match="cannot be normed over all of them"):
        probe_of(tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4, "elastic": 2}, feature_norm="layernorm"))


def test_each_image_is_judged_by_one_part():
    """In training every part of every level is drawn, levels alike, and nothing is dropped in evaluation."""
    parts = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    dropout = NestedDropout(0.0, parts, torch.tensor([1, 2, 2, 4]))
    torch.manual_seed(0)
    drawn = dropout(torch.ones(6000, 4))
    shares = [(drawn == part).all(1).float().mean().item() for part in parts]
    assert shares == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3], abs=0.03)
    assert torch.equal(dropout.eval()(torch.ones(2, 4)), torch.ones(2, 4))


def test_parts_have_levels(tiny_backbone):
    """Queries and channels are divided by powers of two that divide them, up to `elastic` in all."""
    parts = probe_of(tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 2, "elastic": 4})).head.pooling.parts()
    assert set(parts) == {Part(1, 1), Part(1, 2), Part(1, 4), Part(2, 1), Part(2, 2)}
    assert all(kept.sum() == 32 // part.level for part, kept in parts.items())
