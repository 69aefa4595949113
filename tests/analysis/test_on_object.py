"""Attention and evidence on the object, beside chance and beside another image's mask."""

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.on_object import mask_of, on_object
from attentive_probes.cli.main import commands

SIDE = 32  # four patches of 8


def probe_looking_at(folder, places):
    """Two queries, the first at the given patches of the image, the second everywhere alike."""
    torch.manual_seed(0)
    probe = ProbeForImageClassification.from_backbone(
        folder, HeadConfig("ep", {"num_queries": 2}, ("patches",)), labels=["circle", "square"]
    ).eval()
    bias = torch.zeros(2, 16)
    bias[0] = -50
    bias[0, places] = 0
    original = probe.head.pooling.queries

    def queries(statistics):
        found = original(statistics)
        return found._replace(vectors=torch.zeros_like(found.vectors), logit_bias=bias)

    probe.head.pooling.queries = queries
    return probe


def drawing(row, column, value=255):
    """An image, or a mask, with one patch filled."""
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).rectangle([8 * column, 8 * row, 8 * column + 7, 8 * row + 7], fill=value)
    return image


def test_shares_are_counted_by_hand(tiny_backbone):
    """Objects of one patch; one query sees half of them, the other a sixteenth of each."""
    probe = probe_looking_at(tiny_backbone("vit"), [5])
    masks = [drawing(1, 1), drawing(1, 1), drawing(3, 0), drawing(3, 0)]
    found = on_object(probe, [mask.convert("RGB") for mask in masks], masks)
    assert (found.num_images, found.chance) == (4, pytest.approx(1 / 16, abs=1e-3))
    assert found.best_query == pytest.approx(8, rel=0.01) and found.attention == pytest.approx(4.5, rel=0.01)
    assert found.another == pytest.approx(4.5, rel=0.01)  # the same place, whatever the image: as often by chance
    assert found.evidence is not None and found.added is not None
    nowhere = on_object(probe, [mask.convert("RGB") for mask in masks], [drawing(0, 0)] * 4)
    assert nowhere.attention == pytest.approx(0.5, rel=0.01) and nowhere.best_query == pytest.approx(1, rel=0.01)


def test_what_is_wrong_is_said(tiny_backbone, tmp_path):
    """One image, a mask of another size, nothing on it, no mask."""
    probe, image = probe_looking_at(tiny_backbone("vit"), [5]), drawing(1, 1).convert("RGB")
    for masks, told in (
        ([drawing(1, 1)], "2 images and 1 masks"),
        ([drawing(1, 1), drawing(1, 1).resize((16, 16))], r"A mask has \(16, 16\) pixels, its image \(32, 32\)"),
        ([drawing(1, 1), Image.new("L", (SIDE, SIDE))], "shows nothing of an object"),
    ):
        with pytest.raises(ValueError, match=told):
            on_object(probe, [image, image], masks)
    with pytest.raises(ValueError, match="has no mask: there is neither"):
        mask_of(tmp_path / "circle" / "a.jpg", tmp_path)


def test_the_command(tiny_backbone, tmp_path):
    """Masks lie as the images do; the table stands before the picture."""
    pytest.importorskip("matplotlib")
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 2}, ("patches",)), labels=["circle", "square"]
    )
    probe.save_pretrained(tmp_path / "probe")
    for kind in ("images", "masks"):
        for place, name in enumerate(("circle", "square")):
            (tmp_path / kind / name).mkdir(parents=True)
            drawing(1, place).convert("RGB").save(tmp_path / kind / name / "a.png")
    command = ["attention", str(tmp_path / "probe"), str(tmp_path / "images"), "--output", str(tmp_path / "seen.png")]
    told = CliRunner().invoke(commands, [*command, "--masks", str(tmp_path / "masks")])
    assert told.exit_code == 0 and "mask of another image" in told.output and "2 images" in told.output
    (tmp_path / "masks" / "square" / "a.png").unlink()
    told = CliRunner().invoke(commands, [*command, "--masks", str(tmp_path / "masks")])
    assert told.exit_code != 0
