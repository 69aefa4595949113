"""Vision towers of two-tower checkpoints, and families whose input has another form."""

import pytest
import torch
import transformers as hf
from matrix import config_of
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.backbones import VisionBackbone, find_geometry, load_backbone_config
from attentive_probes.backbones.inputs import FORMATS

TEXT = {
    "vocab_size": 99, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
# Name of the tower's row -> the full model, and where the tower is in it.
TOWERS = {
    "clip_vision_model": (hf.CLIPConfig, hf.CLIPModel, "vision_model"),
    "siglip_vision_model": (hf.SiglipConfig, hf.SiglipModel, "vision_model"),
    "siglip2_vision_model": (hf.Siglip2Config, hf.Siglip2Model, "vision_model"),
    "metaclip_2_vision_model": (hf.MetaClip2Config, hf.MetaClip2Model, "vision_model"),
    "aimv2_vision_model": (hf.Aimv2Config, hf.Aimv2Model, "vision_model"),
    "altclip_vision_model": (hf.AltCLIPConfig, hf.AltCLIPModel, "vision_model"),
    "chinese_clip_vision_model": (hf.ChineseCLIPConfig, hf.ChineseCLIPModel, "vision_model"),
    "blip_vision_model": (hf.BlipConfig, hf.BlipModel, "vision_model"),
    "flava_image_model": (hf.FlavaConfig, hf.FlavaModel, "image_model"),
}


def full_model(name):
    config_class, model_class, tower = TOWERS[name]
    vision = config_of(name).to_dict()
    key = "image_config" if name.startswith("flava") else "vision_config"
    torch.manual_seed(0)
    model = model_class(config_class(**{key: vision, "text_config": TEXT})).eval()
    return model, getattr(model, tower)


@pytest.mark.parametrize("name", TOWERS)
def test_the_tower_alone_is_loaded(name, tmp_path):
    """From a two-tower checkpoint comes the vision tower, with the same states and no text parameter in memory."""
    model, tower = full_model(name)
    model.save_pretrained(tmp_path)
    config = load_backbone_config(str(tmp_path))
    backbone = VisionBackbone.from_pretrained(str(tmp_path), config, find_geometry(config, (64, 64)))
    pixels = torch.rand(2, 3, 64, 64)
    form = FORMATS.get(config.model_type)
    arguments = form.arguments(tower, pixels) if form else {"pixel_values": pixels}
    with torch.no_grad():
        expected = tower(**arguments).last_hidden_state
    layout = backbone.geometry.tokens
    assert torch.allclose(backbone(pixels)["last"].patches, layout.split(expected).patches, atol=1e-5)
    assert sum(p.numel() for p in backbone.parameters()) <= sum(p.numel() for p in tower.parameters())


@pytest.mark.parametrize("name", ["clip_vision_model", "metaclip_2_vision_model"])
def test_projected_tokens(name, tmp_path):
    """`projected` is post-norm and projection of every token, as the published ALF numbers used; it survives a save."""
    model, tower = full_model(name)
    model.save_pretrained(tmp_path / "full")
    head = HeadConfig("alf", tokens=("cls@premlp:1", "mean@premlp:1", "cls@projected", "mean@projected"))
    probe = ProbeForImageClassification.from_backbone(
        str(tmp_path / "full"), head, labels=["a", "b"], image_size=(64, 64)
    )
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        hidden = tower(pixels, output_hidden_states=True).hidden_states[-1]
        expected = model.visual_projection(tower.post_layernorm(hidden))
    tokens = probe.backbone(pixels, ("projected",))["projected"]
    assert torch.allclose(torch.cat([tokens.cls, tokens.patches], 1), expected, atol=1e-5)
    assert expected.shape[-1] != hidden.shape[-1]  # two widths in one reading
    probe.eval().save_pretrained(tmp_path / "probe")
    loaded = ProbeForImageClassification.from_pretrained(tmp_path / "probe")
    assert torch.allclose(loaded(pixels).logits, probe(pixels).logits, atol=1e-5)


def test_naflex_patches_are_those_of_its_processor():
    """SigLIP 2 gets its patch vectors in the order that its own image processor makes."""
    name = "siglip2_vision_model"
    backbone = VisionBackbone.from_config(config_of(name), geometry_at(name))
    pixels = torch.rand(2, 3, 48, 80)
    arguments = FORMATS[name].arguments(backbone.model, pixels)
    patch = backbone.model.config.patch_size
    for image, vectors in zip(pixels, arguments["pixel_values"], strict=True):
        assert torch.equal(vectors, torch.from_numpy(convert_image_to_patches(image.numpy(), patch)))
    assert backbone(pixels)["last"].grid == (48 // patch, 80 // patch)


def geometry_at(name, size=(48, 80)):
    return find_geometry(config_of(name), size)


def test_packed_batches_are_unpacked():
    """Pixtral packs a batch into one sequence: each image gets the tokens that it gets alone."""
    backbone = VisionBackbone.from_config(config_of("pixtral"), geometry_at("pixtral"))
    pixels = torch.rand(3, 3, 48, 80)
    together = backbone(pixels, ("block:0", "last"))
    for i in range(3):
        alone = backbone(pixels[i : i + 1], ("block:0", "last"))
        for tap in alone:
            assert torch.allclose(together[tap].patches[i], alone[tap].patches[0], atol=1e-5)


def test_a_clip_of_equal_frames_is_averaged_over_time():
    """VideoMAE sees the image in every frame; its tokens are averaged over the steps in time."""
    config = config_of("videomae")
    config.num_frames = 6
    backbone = VisionBackbone.from_config(config)
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        states = backbone.model(pixels[:, None].repeat(1, 6, 1, 1, 1)).last_hidden_state
    assert states.shape[1] == 3 * 16
    assert torch.allclose(backbone(pixels)["last"].patches, states.view(2, 3, 16, -1).mean(1), atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "swin", "convnext", "pixtral", "vit", "clip_vision_model", "focalnet"])
def test_non_square_images(name):
    """Rows and columns of the grid follow height and width, at every tap."""
    geometry = geometry_at(name, (64, 128))
    backbone = VisionBackbone.from_config(config_of(name), geometry)
    for tap, tokens in backbone(torch.rand(1, 3, 64, 128), ("last", geometry.all_taps[0])).items():
        assert tokens.grid == geometry.layout(tap).grid
        assert tokens.grid[1] == 2 * tokens.grid[0]
        assert tokens.patches.shape[1] == tokens.grid[0] * tokens.grid[1]
