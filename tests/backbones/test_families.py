"""Every flat vision transformer of transformers, tiny and random: tokens, order, taps, and a head that trains on it."""

import csv
import importlib
import json
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig

from attentive_probes import HeadConfig
from attentive_probes.backbones import VisionBackbone, all_taps, find_geometry
from attentive_probes.head import ProbeHead
from attentive_probes.tokens import Reading

TABLE = Path(__file__).parent.parent / "golden" / "backbones.csv"
ROWS = {row["name"]: row for row in csv.DictReader(TABLE.read_text().splitlines())}
every_row = pytest.mark.parametrize("name", ROWS)


def build(name: str) -> tuple[VisionBackbone, torch.Tensor]:
    """A backbone of a family, and two images; its weights are drawn strong enough for every part to matter."""
    row = ROWS[name]
    module = importlib.import_module(row["modeling_module"].replace(".modeling_", ".configuration_"))
    config_class = ViTConfig if name == "vit_mae" else getattr(module, row["config_class"])
    config = config_class(**json.loads(row["tiny_kwargs"]))
    size = int(row["test_image_size"])
    torch.manual_seed(0)
    backbone = VisionBackbone.from_config(config, find_geometry(config, (size, size)))
    return backbone, torch.rand(2, 3, size, size)


@every_row
def test_layout(name):
    """Prefix tokens and grid are those that were measured on the model."""
    backbone, pixels = build(name)
    layout = backbone.geometry.tokens
    with torch.no_grad():
        length = backbone.model(pixel_values=pixels).last_hidden_state.shape[1]
    assert layout.num_prefix_tokens == int(ROWS[name]["prefix_tokens"])
    assert length == layout.num_prefix_tokens + layout.num_patches + int(ROWS[name]["suffix_tokens"] or 0)


@every_row
def test_a_changed_patch_changes_its_own_token_most(name):
    """The grid is in raster order, right behind the prefix."""
    backbone, pixels = build(name)
    rows, columns = backbone.geometry.tokens.grid
    height, width = pixels.shape[2] // rows, pixels.shape[3] // columns
    changed = pixels[:1].clone()
    changed[..., height : 2 * height, 2 * width : 3 * width] = (
        1 - changed[..., height : 2 * height, 2 * width : 3 * width]
    )
    patches = [backbone(p, ("block:0",))["block:0"].patches for p in (pixels[:1], changed)]
    assert (patches[1] - patches[0]).norm(dim=-1).argmax().item() == columns + 2


@every_row
def test_taps(name):
    """Blocks are the hidden states, every tap of `all` is there, `final` is `last` in families that norm it."""
    backbone, pixels = build(name)
    layers = backbone.geometry.num_layers
    with torch.no_grad():
        output = backbone.model(pixel_values=pixels, output_hidden_states=True)
    taps = (*(f"block:{i}" for i in range(layers)), "prenorm", "last", *all_taps(layers))
    tokens = backbone(pixels, taps)
    layout = backbone.geometry.tokens
    for i in range(layers - 1):
        expected = layout.split(output.hidden_states[i + 1])
        assert torch.allclose(tokens[f"block:{i}"].patches, expected.patches, atol=1e-5), i
    assert torch.equal(tokens["last"].patches, layout.split(output.last_hidden_state).patches)
    assert torch.equal(tokens["prenorm"].patches, tokens[f"block:{layers - 1}"].patches)
    if ROWS[name]["final_norm_on_last"] != "no":
        assert torch.allclose(tokens["final"].patches, tokens["last"].patches, atol=1e-5)


@every_row
def test_heads_train_on_it(name):
    """EP on patches and a linear head on all layers take a step; the backbone stays as it was, in evaluation mode."""
    backbone, pixels = build(name)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    layout = backbone.geometry.tokens
    for config in (HeadConfig("ep", {"num_queries": 4}), HeadConfig("concat", tokens=("mean@all",))):
        reading = config.reading.expanded("all", all_taps(backbone.geometry.num_layers))
        assert isinstance(reading, Reading)
        head = ProbeHead(config, layout.width, reading.sequence_layout(layout), 2, reading).train()
        backbone.train()
        logits = head(head.read(backbone(pixels, reading.taps))).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())
    assert not any(module.training for module in backbone.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())
