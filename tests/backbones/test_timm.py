"""A repository in timm's own layout, as on the Hub: run by `make test-timm`."""

import json

import pytest
import torch

import torchvision_shim  # noqa: F401

# isort: split
from safetensors.torch import save_file

from attentive_probes import HeadConfig, ProbeForImageClassification

timm = pytest.importorskip("timm", reason="timm is not installed; `make test-timm` runs it")
PUBLISHED = {
    "input_size": [3, 56, 56],
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def test_a_timm_repository_gives_a_probe(tmp_path):
    """Timm's keys and its evaluation transform; the states are those of timm's own model, class token included."""
    arguments = {"depth": 3, "img_size": 56}
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_reg4_dinov2", **arguments).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    config = {"architecture": "vit_small_patch14_reg4_dinov2", "num_classes": 0, "pretrained_cfg": PUBLISHED}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_args": arguments}))
    head = HeadConfig("alf", tokens=("cls@all", "mean@all"))
    probe = ProbeForImageClassification.from_backbone(str(tmp_path), head, labels=["a", "b"])
    assert probe.image_processor.size["shortest_edge"] == 62 and probe.config.image_size == [56, 56]
    pixels = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        expected = model.forward_features(pixels)
    tokens = probe.backbone(pixels)["last"]
    together = torch.cat([tokens.cls, tokens.registers, tokens.patches], 1)
    assert torch.allclose(together, expected, atol=1e-5)
    assert probe.eval()(pixels).attention.shape[-1] == 6  # class token and mean of two blocks and the final norm
