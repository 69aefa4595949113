import pytest
import torch
import transformers as hf

from attentive_probes.backbones import VisionBackbone, find_geometry, load_backbone_config
from tiny import FAMILIES, PATCH, SIZE, WIDTH

every_family = pytest.mark.parametrize("family", FAMILIES)
TAPS = ("last", "prenorm")


def load(folder: str, size: tuple[int, int] = (SIZE, SIZE)) -> VisionBackbone:
    config = load_backbone_config(folder)
    return VisionBackbone.from_pretrained(folder, config, find_geometry(config, size))


@every_family
def test_layout(family, tiny_backbone):
    """Prefix tokens and grid are found by structure, for every family."""
    layout = load(tiny_backbone(family)).geometry.tokens
    assert (layout.num_cls, layout.num_registers) == FAMILIES[family][2:]
    assert layout.grid == (SIZE // PATCH, SIZE // PATCH)
    assert layout.width == WIDTH


@every_family
def test_states_are_those_of_the_model(family, tiny_backbone):
    """`last` is last_hidden_state and `prenorm` the last hidden state, put together again in their order."""
    backbone = load(tiny_backbone(family))
    pixels = torch.randn(2, 3, SIZE, SIZE)
    tokens = backbone(pixels, TAPS)
    with torch.no_grad():
        output = backbone.model(pixels, output_hidden_states=True)
    for tap, expected in (("last", output.last_hidden_state), ("prenorm", output.hidden_states[-1])):
        cls, registers, patches, *_ = tokens[tap]
        assert torch.allclose(torch.cat([cls, registers, patches], 1), expected, atol=1e-6)


@every_family
def test_blocks_are_the_hidden_states(family, tiny_backbone):
    """`block:i` is hidden state i + 1, from either end; `final` is the final norm of the last one."""
    backbone = load(tiny_backbone(family))
    pixels = torch.randn(2, 3, SIZE, SIZE)
    taps = ("block:0", "block:1", "block:-1", "final", "prenorm", "last")
    tokens = backbone(pixels, taps)
    assert tuple(tokens) == taps
    with torch.no_grad():
        states = backbone.model(pixels, output_hidden_states=True).hidden_states
        norm = dict(backbone.model.named_children())["post_layernorm" if family in ("clip", "siglip") else "layernorm"]
        expected = (states[1], states[2], states[3], norm(states[3]), states[3])
    for tap, state in zip(taps, expected, strict=False):
        cls, registers, patches, *_ = tokens[tap]
        assert torch.allclose(torch.cat([cls, registers, patches], 1), state, atol=1e-5), tap
    assert torch.equal(tokens["final"].patches, tokens["last"].patches) == (family != "clip")


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip"])
def test_premlp_is_the_normed_stream_after_attention(family, tiny_backbone):
    """`premlp:i` equals the block's formula, written out: norm2(x + attention(norm1(x)))."""
    backbone = load(tiny_backbone(family))
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        before = backbone.model(pixels, output_hidden_states=True).hidden_states[1]
    block = next(m for m in backbone.model.modules() if isinstance(m, torch.nn.ModuleList))[1]
    parts = dict(block.named_children())
    first, second = {
        "vit": ("layernorm_before", "layernorm_after"),
        "dinov2": ("norm1", "norm2"),
        "clip": ("layer_norm1", "layer_norm2"),
    }[family]
    attention = parts.get("attention") or parts["self_attn"]
    with torch.no_grad():
        mixed = attention(parts[first](before))
        mixed = mixed if isinstance(mixed, torch.Tensor) else mixed[0]
        mixed = parts["layer_scale1"](mixed) if "layer_scale1" in parts else mixed
        expected = parts[second](before + mixed)
    tokens = backbone(pixels, ("premlp:1",))["premlp:1"]
    assert torch.allclose(torch.cat([tokens.cls, tokens.patches], 1), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip", "siglip"])
def test_taps_inside_a_block_make_up_its_output(family, tiny_backbone):
    """A block adds to what comes in its scaled attention, `attn:i`, and the map of its activation, `ffn:i`."""
    backbone = load(tiny_backbone(family))
    read = backbone(torch.randn(2, 3, SIZE, SIZE), ("block:0", "attn:1", "ffn:1", "block:1", "ffn:-2"))
    before, mixed, activation, after, same = (torch.cat(read[tap][:3], 1) for tap in read)
    block = next(m for m in backbone.model.modules() if isinstance(m, torch.nn.ModuleList))[1]
    parts = dict(block.named_children())
    scales = [parts.get(f"layer_scale{i}", torch.nn.Identity()) for i in (1, 2)]
    down = next(m for m in block.modules() if isinstance(m, torch.nn.Linear) and m.in_features == activation.shape[2])
    with torch.no_grad():
        expected = before + scales[0](mixed) + scales[1](down(activation))
    assert torch.allclose(after, expected, atol=1e-4) and torch.equal(activation, same)
    assert activation.shape[2] == 2 * mixed.shape[2] or family == "dinov2"


def test_hooks_do_not_pile_up(tiny_backbone):
    """However often it is read, a module that is tapped has one hook, others none; only what was asked for is kept."""
    backbone = load(tiny_backbone("vit"))
    for _ in range(3):
        assert list(backbone(torch.randn(1, 3, SIZE, SIZE), ("block:0", "final"))) == ["block:0", "final"]
    hooks = [len(module._forward_hooks) for module in backbone.modules()]
    assert max(hooks) == 1 and sum(hooks) == 2


@every_family
def test_prenorm_precedes_the_final_norm(family, tiny_backbone):
    """Where the family norms its last state, `last` is the norm of `prenorm`; CLIP leaves it un-normed."""
    backbone = load(tiny_backbone(family))
    tokens = backbone(torch.randn(2, 3, SIZE, SIZE), TAPS)
    norm = next(
        (m for n, m in backbone.model.named_modules() if n.endswith(("post_layernorm", "layernorm")) and "." not in n),
        None,
    )
    assert norm is not None
    expected = tokens["prenorm"].patches if family == "clip" else norm(tokens["prenorm"].patches)
    assert torch.allclose(tokens["last"].patches, expected, atol=1e-5)


@every_family
def test_patches_are_in_raster_order(family, tiny_backbone):
    """Changing one patch of the image moves the embedding of its own token, and no other patch."""
    folder = tiny_backbone(family)
    config = load_backbone_config(folder)
    backbone = load(folder)
    pixels = torch.randn(1, 3, SIZE, SIZE)
    changed = pixels.clone()
    row, column = 1, 2
    changed[..., row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] += 1
    with torch.no_grad():
        states = [backbone.model(p, output_hidden_states=True).hidden_states[0] for p in (pixels, changed)]
    difference = (states[1] - states[0]).norm(dim=-1)[0, backbone.geometry.tokens.num_prefix_tokens :]
    assert difference.nonzero().flatten().tolist() == [row * backbone.geometry.tokens.grid[1] + column]
    assert config.model_type != "vit_mae"


def test_mae_becomes_a_vit_with_the_same_weights(tiny_backbone):
    """A masked autoencoder's checkpoint gives the tokens of its encoder without masking, in order."""
    folder = tiny_backbone("vit_mae")
    backbone = load(folder)
    assert isinstance(backbone.model, hf.ViTModel)
    mae = hf.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    pixels = torch.randn(2, 3, SIZE, SIZE)
    num_patches = backbone.geometry.tokens.num_patches
    with torch.no_grad():
        expected = mae(pixels, noise=torch.arange(num_patches).expand(2, -1).float()).last_hidden_state
    tokens = backbone(pixels)["last"]
    assert torch.allclose(torch.cat([tokens.cls, tokens.patches], 1), expected, atol=1e-5)


@every_family
def test_frozen_means_frozen(family, tiny_backbone):
    """No gradient, always evaluation mode, also after train()."""
    backbone = load(tiny_backbone(family)).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone(torch.randn(1, 3, SIZE, SIZE))["last"].patches.requires_grad


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip"])
def test_other_resolutions(family, tiny_backbone):
    """Another, non-square size than the trained one is interpolated, with the grid to match."""
    backbone = load(tiny_backbone(family), (24, 32))
    assert backbone.geometry.tokens.grid == (6, 8)
    assert backbone(torch.randn(1, 3, 24, 32))["last"].patches.shape == (1, 48, WIDTH)


def test_wrong_input_is_named(tiny_backbone):
    """Wrong image size and unknown taps."""
    backbone = load(tiny_backbone("vit"))
    with pytest.raises(ValueError, match=r"images are \(8, 8\) pixels, but this probe reads \(16, 16\)"):
        backbone(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="Unknown tap 'lst'. Did you mean 'last'"):
        backbone(torch.randn(1, 3, SIZE, SIZE), ("lst",))
    for tap in ("block:3", "block:-4", "premlp:x"):
        with pytest.raises(ValueError, match=f"tap '{tap}' is out of range: the backbone has 3 blocks"):
            backbone(torch.randn(1, 3, SIZE, SIZE), (tap,))


def test_incomplete_checkpoints_are_refused(tmp_path):
    """A checkpoint that lacks backbone weights is not filled up with random ones."""
    config = hf.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    model = hf.ViTModel(config, add_pooling_layer=False)
    state = {key: value for key, value in model.state_dict().items() if "intermediate" not in key and "mlp" not in key}
    assert len(state) < len(model.state_dict())
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match="lacks weights of its backbone"):
        load(str(tmp_path))
