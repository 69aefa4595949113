"""What cannot be read is refused before any work, with the reason and the way out."""

import pytest
import torch
import transformers as hf
from matrix import config_of

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.backbones import VisionBackbone, find_geometry, load_backbone_config


def saved(config, folder):
    config.save_pretrained(folder)
    return str(folder)


def test_no_vision_model(tmp_path):
    """No such folder, a text model."""
    with pytest.raises(ValueError, match="no backbone '/no/such/folder'"):
        load_backbone_config("/no/such/folder")
    with pytest.raises(ValueError, match="no vision model that takes pixel_values"):
        load_backbone_config(saved(hf.BertConfig(), tmp_path))


DETECTORS = {
    "detr": hf.DetrConfig,
    "rt_detr": hf.RTDetrConfig,
    "captioner": lambda: hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(hf.ViTConfig(), hf.BertConfig()),
}


@pytest.mark.parametrize("make_config", DETECTORS.values(), ids=DETECTORS)
def test_detectors_and_encoder_decoders(make_config, tmp_path):
    """Object queries are no image tokens."""
    with pytest.raises(ValueError, match="use the vision backbone inside it"):
        load_backbone_config(saved(make_config(), tmp_path))


def test_backbones_without_image_tokens(tmp_path):
    """A family that gives none says why, and what to use instead."""
    with pytest.raises(ValueError, match="its tokens are groups, no patches; use CLIP"):
        load_backbone_config(saved(hf.GroupViTVisionConfig(), tmp_path))


@pytest.mark.parametrize("name", ["aimv2_vision_model", "ovis2_vision", "pvt", "sam_vision_model", "videomae"])
def test_wrong_image_size(name):
    """A family that cannot take another size than its own says so and names its own."""
    with pytest.raises(ValueError, match=r"cannot read images of \(96, 96\) pixels .*; try its own size, \D*64"):
        find_geometry(config_of(name), (96, 96))


def test_taps_that_do_not_exist():
    """Blocks and stages out of range, taps of the other kind, a projection that is not there."""
    flat, staged = find_geometry(config_of("vit"), (64, 64)), find_geometry(config_of("swin"), (64, 64))
    for tap in ("block:3", "block:-4", "premlp:x"):
        with pytest.raises(ValueError, match=f"tap '{tap}' is out of range: the backbone has 3 blocks"):
            flat.layout(tap)
    with pytest.raises(ValueError, match="'stage:3' is out of range: the backbone has 3 stages"):
        staged.layout("stage:3")
    for geometry, tap in ((flat, "stage:0"), (flat, "projected"), (staged, "block:0"), (staged, "prenorm")):
        with pytest.raises(ValueError, match=f"Unknown tap '{tap}'"):
            geometry.layout(tap)
    with pytest.raises(ValueError, match="Did you mean 'last'"):
        flat.layout("lst")


def test_a_projection_that_was_not_loaded():
    """Reading `projected` from a tower without it is named, not an AttributeError."""
    backbone = VisionBackbone.from_config(config_of("clip_vision_model"))
    with pytest.raises(ValueError, match="loaded without its projection"):
        backbone(torch.zeros(1, 3, 64, 64), ("projected",))


def test_a_head_that_asks_for_tokens_that_are_not_there(tmp_path):
    """A class token of a ResNet."""
    folder = tmp_path / "resnet"
    hf.ResNetModel(config_of("resnet")).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"no cls tokens for the item 'cls'; it offers \['patches', 'mean'\]"):
        ProbeForImageClassification.from_backbone(
            str(folder), HeadConfig("mean", tokens=("cls",)), labels=["a", "b"], image_size=(64, 64)
        )


def test_code_from_a_repository_is_not_run_unasked(tmp_path):
    """A configuration with code of its own is refused without trust, and the text says how to give it."""
    (tmp_path / "configuration_own.py").write_text("raise SystemExit('this must not run')\n")
    (tmp_path / "config.json").write_text(
        '{"model_type": "stranger", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}'
    )
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_backbone_config(str(tmp_path))
