import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.figures.layer_figure import layer_figure, layer_map_figure, write_layer_maps
from attentive_probes.analysis.layer_maps import LayerMap, LayerRow, LayerSums, layer_heatmap, layer_rows
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from tiny import image_dataset


@pytest.fixture
def fusion(tiny_backbone):
    """A probe over all layers."""
    head = HeadConfig("alf", tokens=("cls@all", "mean@all"))
    return ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=["band 0", "band 1"]).train()


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
            assert picture.size == (1080, 435)


def test_maps_of_classes_are_parts_of_the_whole(fusion):
    """The mean over classes, weighted by their images, is that over all; batches do not matter."""
    rows = layer_rows({"alf": fusion}, image_dataset(10, 2), "bands", by_class=True, batch_size=3)
    assert [(row.label, row.num_images) for row in rows] == [(None, 10), ("band 0", 5), ("band 1", 5)]
    whole, first, second = (row.map.attention for row in rows)
    assert torch.allclose(whole, (first + second) / 2, atol=1e-6) and not torch.allclose(first, second, atol=1e-6)
    alone = layer_heatmap(fusion, [row["image"] for row in image_dataset(10, 2)])
    assert torch.allclose(alone.attention, whole, atol=1e-6)


def test_several_labels(fusion):
    """An image counts for each class that it shows."""
    sums = LayerSums(fusion)
    sums.add(torch.full((2, 3, 6), 1 / 6), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    assert sums.labels == [0, 1] and sums.counts == {None: 2, 0: 1, 1: 2}


def test_layout_of_the_numbers(tmp_path):
    """Columns and order are those of the published maps: an average patch is `ap`, `p01` the first tap."""
    published = Path(__file__).parent.parent / "golden" / "all-layer-attention-head.csv"
    expected = list(csv.reader(published.read_text().splitlines()))
    values = torch.tensor([[float(cell) for cell in row[4:] if cell] for row in expected[1:3]])
    found = LayerMap(tuple(f"premlp:{i}" for i in range(values.shape[1])), ("cls", "mean"), values.flip(0).T)
    row = LayerRow("alf", expected[1][0], expected[1][1], None, 100, int(expected[1][3]), found)
    write_layer_maps([row], tmp_path / "maps.csv")
    written = list(csv.reader((tmp_path / "maps.csv").read_text().splitlines()))
    width = 4 + values.shape[1]
    assert written == [line[:width] for line in expected[:3]]
    layer_map_figure([row, row._replace(probe="other"), row._replace(model="larger")], tmp_path / "maps.png")
    with pytest.raises(ValueError, match="no layer map"):
        layer_map_figure([], tmp_path / "none.png")


def test_images_are_opened_as_everywhere(tiny_backbone):
    """Sixteen bits, transparency and grey: the map is that of the image as every other door opens it."""
    head = HeadConfig("alf", {"num_attention_heads": 4}, tokens=("cls@all", "mean@all"))
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=2)
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    clear = np.zeros((16, 16, 4), np.uint8)
    clear[4:12, 4:12] = (200, 30, 30, 255)
    for image in (Image.fromarray(ramp), Image.fromarray(clear), Image.fromarray((ramp >> 8).astype(np.uint8))):
        opened = open_image(image, "of the test", num_channels=probe.backbone.num_channels)
        found = layer_heatmap(probe, [image]).attention
        assert torch.allclose(found, layer_heatmap(probe, [opened]).attention)
        differs = opened.tobytes() != image.convert("RGB").tobytes()
        assert differs == (image.mode != "L")
        assert not differs or not torch.allclose(found, layer_heatmap(probe, [image.convert("RGB")]).attention)
