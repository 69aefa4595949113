import pytest
import torch
from PIL import Image

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.layer_maps import layer_heatmap
from attentive_probes.analysis.plots import layer_figure
from attentive_probes.evaluation.results import HeadResult, SweepResults
from tiny import image_dataset


@pytest.fixture
def fusion(tiny_backbone):
    """A probe over all layers."""
    head = HeadConfig("alf", tokens=("cls@all", "mean@all"))
    return ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=["a", "b"]).train()


def test_layer_heatmap_is_the_mean_attention(fusion):
    """Mean over images and heads of each token's attention, laid out by tap and kind, however the images are cut."""
    images = [row["image"] for row in image_dataset(5)]
    found = layer_heatmap(fusion, images, batch_size=2)
    assert (found.taps, found.kinds) == (("premlp:1", "premlp:2", "final"), ("cls", "mean"))
    assert fusion.training
    pixels = fusion.image_processor(images, return_tensors="pt")["pixel_values"]
    attention = fusion.eval()(pixels).attention  # (B, M, 6): cls, mean, cls, mean, ...
    assert torch.allclose(found.attention, attention.mean((0, 1)).view(3, 2), atol=1e-6)
    assert found.attention.sum().item() == pytest.approx(1, abs=1e-5)


def test_patches_count_as_one_kind(tiny_backbone):
    """The attention on all patches of a tap is their sum; a kind that is absent at a tap is zero there."""
    head = HeadConfig("ep", {"num_queries": 4}, ("cls", "patches", "patches@block:0"))
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=["a", "b"])
    found = layer_heatmap(probe, [row["image"] for row in image_dataset(2)])
    assert (found.taps, found.kinds) == (("last", "block:0"), ("cls", "patches"))
    assert found.attention[1, 0] == 0
    assert found.attention.sum().item() == pytest.approx(1, abs=1e-5)


def test_no_images(fusion):
    """Nothing to look at is named."""
    with pytest.raises(ValueError, match="no image to look at"):
        layer_heatmap(fusion, [])


def test_figure(fusion, tmp_path):
    """Accuracy over depth beside the map; a run without single-layer heads is drawn as well."""
    layers = layer_heatmap(fusion, [row["image"] for row in image_dataset(2)])
    test = {"top1": 50.0, "top1_interval": [40.0, 60.0]}

    def entry(name, *tokens):
        return HeadResult(name, {"pooling": "mean", "tokens": list(tokens)}, 0.1, 0.0, 1, test=test)

    heads = [entry("b1", "mean@block:1"), entry("b0", "mean@block:0"), entry("fused", "cls@final", "mean@block:1")]
    for number, some in enumerate((heads, heads[2:])):
        path = tmp_path / f"{number}.png"
        layer_figure(SweepResults(some, "top1", {}, {}, {}), layers, path)
        with Image.open(path) as picture:
            assert picture.size == (1430, 546)
