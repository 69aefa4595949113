"""The table of what exports, on some of its rows, and what exporting needs."""

import csv
import importlib.util

import pytest
import torch
from export_matrix import FOLDER, backbone_row

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.serving.export import export_probes
from attentive_probes.serving.export_formats import check_installed
from tiny import SIZE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "swin", "siglip2_vision_model"])
def test_the_table_of_exports_is_true(name):
    """Rows of the documented table are found again: what exports, for any size or not, and the reason."""
    table = csv.DictReader((FOLDER / "backbones.csv").read_text().splitlines())
    row = next(row for row in table if row["backbone"] == name)
    found = backbone_row(name)
    assert all(found[key][:60] == row[key][:60] for key in ("heads", "any_size", "reason"))
    assert not row["heads"] or float(found["difference"]) < 1e-4 > float(row["difference"])


@pytest.mark.slow
def test_a_probe_in_training_is_exported_as_it_would_answer(tiny_backbone, tmp_path):
    """Statistics of tokens stay what they were; a head that answers NaN is refused."""
    head = HeadConfig("aim", {"num_attention_heads": 4})
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=3)
    probe.train()(torch.randn(8, 3, SIZE, SIZE))
    state = {key: value.clone() for key, value in probe.head.state_dict().items()}
    path = export_probes(probe, tmp_path / "probe.pt2").path
    assert all(torch.equal(value, state[key]) for key, value in probe.head.state_dict().items())
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.export.load(path).module()(images)[0], probe.eval()(images).logits, atol=1e-5, rtol=1e-4
        )
        probe.head.classifier.bias[0] = float("nan")
    with pytest.raises(ValueError, match="differs from the probe by inf"):
        export_probes(probe, tmp_path / "other.pt2")
    assert not (tmp_path / "other.pt2").exists()


def test_a_missing_package_is_named(monkeypatch):
    """Without the runtime, the error says what to install."""
    found = importlib.util.find_spec
    place = "attentive_probes.serving.export_formats.find_spec"
    monkeypatch.setattr(place, lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'attentive-probes\[export\]'"):
        check_installed("onnx")
    check_installed("torch")
