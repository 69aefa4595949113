"""Several backbones as one: each sees the image as it would alone, patches lie on one grid, relevance is by weights."""

import pytest
import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.relevance import relevance
from attentive_probes.backbones.joined import JoinedBackbones
from tiny import SIZE

HEAD = HeadConfig("combo", {"hidden": 16}, tokens=("patches@one.block1", "patches@one.last", "patches@two.last"))


TAPS = {"one": ["block:1", "last"], "two": ["last"]}


def join(tiny_backbone):
    """A ViT and a DINOv2."""
    return JoinedBackbones.from_pretrained({"one": tiny_backbone("vit"), "two": tiny_backbone("dinov2")}, TAPS)


def test_each_member_sees_what_it_would_alone(tiny_backbone):
    """Tokens of a tap are those of the member on its own normalized pixels; other grids are interpolated."""
    joined = join(tiny_backbone)
    found = joined.members
    raw = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    tokens = joined.tokens(raw / 255)
    assert list(tokens) == ["one.block1", "one.last", "last", "two.last"]
    for name, tap, key in (("one", "block:1", "one.block1"), ("two", "last", "two.last")):
        alone = found[name](raw, (tap,))[tap]
        assert torch.allclose(tokens[key].cls, alone.cls, atol=1e-4)
        assert tokens[key].grid == found["one"].geometry.tokens.grid
        if alone.grid == joined.grid:
            assert torch.allclose(tokens[key].patches, alone.patches, atol=1e-4)


def test_a_probe_reads_both(tiny_backbone, tmp_path):
    """A ComBo head trains on both, is saved as its head alone, and says how much each item and backbone weighs."""
    joined = join(tiny_backbone)
    options = {"num_labels": 3, "image_processor": joined.image_processor}
    probe = ProbeForImageClassification.from_backbone(joined, HEAD, **options)
    pixels = torch.rand(2, 3, SIZE, SIZE)
    probe.train()(pixels, labels=torch.tensor([0, 1])).loss.backward()
    assert probe.head.pooling.compress.weight.grad.abs().sum() > 0
    items, backbones = relevance(probe)
    assert list(backbones) == ["one", "two"] and sum(items.values()) == pytest.approx(1)
    with torch.no_grad():
        probe.head.pooling.compress.weight[:, -probe.backbone.geometry.layout("two.last").width :] = 0
    assert relevance(probe)[1]["two"] == 0
    probe.head.is_trained = True
    probe.save_pretrained(tmp_path)
    again = join(tiny_backbone)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path, backbone=again).eval()
    assert torch.allclose(loaded(pixels).logits, probe.eval()(pixels).logits, atol=1e-5)


def test_what_does_not_fit_is_said(tiny_backbone):
    """Names with dots, unknown taps, unequal items and other poolings are errors."""
    found = dict(join(tiny_backbone).members)
    with pytest.raises(ValueError, match="no name with a dot"):
        JoinedBackbones({"a.b": found["one"]})
    with pytest.raises(ValueError, match="Unknown tap 'blok:1'"):
        JoinedBackbones(found, ["blok:1"])
    with pytest.raises(ValueError, match="position by position"):
        ProbeForImageClassification.from_backbone(
            tiny_backbone("vit"), HeadConfig("combo", tokens=("cls", "patches")), num_labels=2
        )
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), num_labels=2)
    with pytest.raises(ValueError, match="has no relevance; combo has"):
        relevance(probe)
