import pytest
import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.attention_maps import attention_heatmap, patch_attention
from tiny import SIZE, image_dataset


def make_probe(folder, tokens=("patches",), pooling="ep") -> ProbeForImageClassification:
    options = {"num_queries": 4} if pooling == "ep" else {}
    return ProbeForImageClassification.from_backbone(folder, HeadConfig(pooling, options, tokens), num_labels=3)


def test_maps_lie_where_their_patches_are(tiny_backbone):
    """Attention on one patch becomes a spot at that patch's place; other tokens' share is left out."""
    probe = make_probe(tiny_backbone("vit"), ("cls", "patches"))
    attention = torch.zeros(1, 2, 17)
    attention[0, 0, 0] = 1  # the class token
    attention[0, 1, 1 + 1 * 4 + 2] = 1  # patch in row 1, column 2
    maps = patch_attention(probe, attention)
    assert maps.shape == (1, 2, 4, 4)
    assert maps[0, 0].sum() == 0
    assert maps[0, 1].nonzero().tolist() == [[1, 2]]


def test_heatmap_in_image_pixels(tiny_backbone):
    """(M, H, W), the probe's own attention, and the probe stays in its mode."""
    probe = make_probe(tiny_backbone("vit")).train()
    image = image_dataset(1)[0]["image"]
    maps = attention_heatmap(probe, image)
    assert maps.shape == (4, SIZE, SIZE)
    assert probe.training
    pixels = probe.image_processor(image, return_tensors="pt")["pixel_values"]
    attention = probe.eval()(pixels).attention[0].unflatten(-1, (4, 4))
    assert torch.allclose(
        torch.nn.functional.avg_pool2d(maps[None], 4)[0].mean((1, 2)), attention.mean((1, 2)), atol=1e-2
    )
    assert maps.flatten(1).argmax(1).tolist() != [0, 0, 0, 0]


def test_probes_without_patches_have_no_picture(tiny_backbone):
    """A probe on the class token says why."""
    with pytest.raises(ValueError, match="no patches"):
        attention_heatmap(make_probe(tiny_backbone("vit"), ("cls",), "mean"), image_dataset(1)[0]["image"])
