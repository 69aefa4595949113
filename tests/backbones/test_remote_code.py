"""Backbones that bring their own code: run only when the user says so."""

import json

import pytest
import torch
from matrix import config_of
from transformers import ViTModel

from attentive_probes import HeadConfig, ProbeForImageClassification

CONFIGURATION = """
from transformers import PreTrainedConfig


class OwnConfig(PreTrainedConfig):
    model_type = "own"
    hidden_size: int = 8
    image_size: int = 16
    patch_size: int = 4
    num_hidden_layers: int = 2
"""
MODELING = """
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_own import OwnConfig


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        width = config.hidden_size
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, pixel_values):
        states = self.embed(pixel_values).flatten(2).mT
        for layer in self.layers:
            states = states + layer(states)
        return BaseModelOutput(states)
"""


@pytest.fixture
def repository(tmp_path):
    """A folder with code, configuration and weights."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODELING)
    (folder / "config.json").write_text(
        '{"model_type": "own", "auto_map": '
        '{"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}}'
    )
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
    return folder


def test_trusted_code_is_read_saved_and_loaded(repository, tmp_path):
    """A probe on such a backbone trains, and loads again only with the same trust."""
    probe = ProbeForImageClassification.from_backbone(
        str(repository), HeadConfig("mean"), labels=["a", "b"], trust_remote_code=True
    )
    pixels = torch.rand(2, 3, 16, 16)
    expected = probe.eval()(pixels).logits
    probe.save_pretrained(tmp_path / "probe")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        ProbeForImageClassification.from_pretrained(tmp_path / "probe")
    loaded = ProbeForImageClassification.from_pretrained(tmp_path / "probe", trust_remote_code=True)
    assert torch.allclose(loaded(pixels).logits, expected, atol=1e-6)


def test_code_beside_a_known_model_never_runs(tmp_path):
    """A repository that carries code for a type that transformers knows is read without it, and without trust."""
    folder = tmp_path / "vit"
    ViTModel(config_of("vit"), add_pooling_layer=False).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("configuration_own.py", "modeling_own.py"):
        (folder / name).write_text("raise SystemExit('this must not run')\n")
    probe = ProbeForImageClassification.from_backbone(str(folder), HeadConfig("mean"), labels=["a", "b"])
    probe.save_pretrained(tmp_path / "probe")
    loaded = ProbeForImageClassification.from_pretrained(tmp_path / "probe")
    assert type(loaded.backbone.model) is ViTModel
