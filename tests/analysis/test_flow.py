"""The analysis of "Beyond [cls]": its numbers, and every flat backbone that attends."""

import csv
import math
from pathlib import Path

import pytest
import torch
from matrix import ROWS, save, size_of
from safetensors.torch import load_file
from typer.testing import CliRunner

from attentive_probes.analysis.flow import attention_flow, eager_attention, uniform_entropy
from attentive_probes.analysis.measures.attention_statistics import STATISTICS, attention_statistics, update_magnitudes
from attentive_probes.backbones import VisionBackbone, find_geometry, load_backbone_config
from attentive_probes.cli.main import commands
from attentive_probes.tokens import TokenLayout
from tiny import image_dataset

GOLDEN = load_file(Path(__file__).parent.parent / "golden" / "attention_stats.safetensors")
FAMILIES = [
    "vit", "vit_mae", "beit", "data2vec-vision", "dinov2_with_registers", "dinov3_vit", "ijepa", "radio",
    "flava_image_model", "clip_vision_model", "siglip2_vision_model", "aimv2_vision_model", "internvl_vision",
    "pixtral", "videomae", "yolos",
]  # fmt: skip


def backbone_of(name, folder):
    source = save(name, folder)
    config = load_backbone_config(source)
    return VisionBackbone.from_pretrained(source, config, find_geometry(config, size_of(name)))


def test_numbers_are_those_of_the_papers_code():
    """Per image, block and head; the two columns of registers are ours."""
    layout = TokenLayout(8, 1, 0, (3, 3))
    for block in range(3):
        found = attention_statistics(GOLDEN["attentions"][block], layout)
        assert torch.allclose(found[..., :8], GOLDEN["per_head"][:, block], atol=1e-6)
        assert found[..., 8:].isnan().all()
        sizes = update_magnitudes(GOLDEN["update_norm"][block], GOLDEN["residual_norm"][block], layout)
        assert torch.allclose(sizes, GOLDEN["magnitude"][:, block], atol=1e-6)
    means = torch.stack([attention_statistics(a, layout)[..., :8].mean((0, 1)) for a in GOLDEN["attentions"]])
    assert torch.allclose(means, GOLDEN["per_layer"], atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_that_attends(name, tmp_path):
    """All blocks, shares of attention that add up to one, entropies below that of looking everywhere."""
    if name not in ROWS:
        pytest.fail(f"{name} is no row of the matrix")
    backbone = backbone_of(name, tmp_path)
    before = backbone.model.config._attn_implementation
    pixels = torch.randn(3, backbone.num_channels, *backbone.geometry.image_size)
    flow = attention_flow(backbone, [pixels[:2], pixels[2:]])
    assert backbone.model.config._attn_implementation == before
    assert flow.num_images == 3 and len(flow.statistics) == backbone.geometry.num_layers
    columns = dict(zip(STATISTICS, flow.statistics.unbind(-1), strict=True))
    layout = backbone.geometry.layout("block:0")
    assert (columns["pos_pos_entropy"] <= uniform_entropy(flow) + 1e-3).all() and (columns["pos_pos_entropy"] > 0).all()
    assert flow.magnitudes[:, 1].isfinite().all() and (flow.magnitudes[:, 1] > 0).all()
    if layout.num_cls and name != "yolos":  # whose detection tokens take a share
        total = columns["cls_cls_attention"] + flow.num_patches * columns["cls_pos_attention"]
        assert torch.allclose(total + columns["cls_register_attention"].nan_to_num(), torch.tensor(1.0), atol=1e-4)
    assert columns["cls_cls_attention"].isnan().all() == (not layout.num_cls)
    assert columns["pos_register_attention"].isnan().all() == (not layout.num_registers)


def test_batches_do_not_matter(tmp_path):
    """Streams: the mean over images, whatever the batches."""
    backbone = backbone_of("vit", tmp_path)
    pixels = torch.randn(5, 3, *backbone.geometry.image_size)
    one, other = (attention_flow(backbone, pixels.split(size)) for size in (5, 2))
    assert torch.allclose(one.statistics, other.statistics, atol=1e-6, equal_nan=True)
    assert torch.allclose(one.magnitudes, other.magnitudes, atol=1e-6)


@pytest.mark.parametrize("name", ["swin", "sam_vision_model", "resnet"])
def test_what_has_no_such_flow(name, tmp_path):
    """Refused with the reason; the form of attention is as before."""
    backbone = backbone_of(name, tmp_path)
    before = backbone.model.config._attn_implementation
    with pytest.raises(ValueError, match="do not attend over all patches|as within windows|no attention"):
        attention_flow(backbone, [torch.randn(1, 3, *backbone.geometry.image_size)])
    assert backbone.model.config._attn_implementation == before
    assert not any(module._forward_pre_hooks for module in backbone.model.modules())


def test_the_form_comes_back_after_an_error(tmp_path):
    """Also when an image is at fault."""
    backbone = backbone_of("vit", tmp_path)
    before = backbone.model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), eager_attention(backbone.model):
        assert backbone.model.config._attn_implementation == "eager"
        raise ZeroDivisionError
    assert backbone.model.config._attn_implementation == before
    with pytest.raises(ValueError, match="no image"):
        attention_flow(backbone, [])


def test_the_command(tiny_backbone, tmp_path):
    """A trained backbone beside its control: a picture, and a row per block and head."""
    pytest.importorskip("matplotlib")
    image_dataset(6).to_parquet(tmp_path / "test.parquet")
    output = tmp_path / "flow.svg"
    arguments = [
        "flow",
        tiny_backbone("vit"),
        "--data",
        str(tmp_path / "test.parquet"),
        "--split",
        "test",
        "--control",
    ]
    done = CliRunner().invoke(commands, [*arguments, "--output", str(output), "--images", "5", "--batch-size", "2"])
    assert done.exit_code == 0, done.output
    with output.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["images"] for row in rows} == {"5"} and len({row["backbone"] for row in rows}) == 2
    assert math.isfinite(float(rows[0]["pos_pos_entropy"])) and rows[0]["pos_register_attention"] == ""
    assert "untrained" in output.read_text()
