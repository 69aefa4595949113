"""Summaries of layers and their fusion, each by the pooling that it is made of."""

import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.poolings import build_pooling
from attentive_probes.tokens import SequenceLayout


def test_it_is_ep_and_then_alf():
    """Features are those of ALF over the features of EP of each item; the attention is shares times maps."""
    torch.manual_seed(0)
    layout = SequenceLayout(11, None, (1, 6, 4))
    pooling = build_pooling("alf_ep", 32, layout, {"num_queries": 4, "d_out": 2})
    tokens = torch.randn(5, 11, 32)
    features, attention = pooling(tokens)
    parts = [ep(part) for ep, part in zip(pooling.summaries, tokens.split([1, 6, 4], 1), strict=True)]
    fused = pooling.fusion(torch.stack([part.features for part in parts], 1))
    assert torch.equal(features, fused.features) and features.shape == (5, 16)
    shares = torch.stack([part.sum(-1) for part in attention.split([1, 6, 4], -1)], -1)
    assert torch.allclose(shares, fused.attention, atol=1e-6)
    expected = parts[1].attention.mean(1, keepdim=True) * shares[..., 1:2]
    assert torch.allclose(attention[..., 1:7], expected, atol=1e-6)


def test_a_probe_summarizes_its_layers(tiny_backbone):
    """Read with the patches of all layers, there is a summary per layer, and the class token of one is one more."""
    head = HeadConfig("alf_ep", {"num_queries": 2}, tokens=("cls", "patches@all"))
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=3)
    count = probe.backbone.geometry.tokens.num_patches
    assert probe.head.pooling.lengths == (1, count, count, count)
    output = probe(torch.randn(2, 3, *probe.backbone.geometry.image_size))
    assert output.attention.shape == (2, 4, 1 + 3 * count)
