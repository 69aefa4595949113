"""The table of what exports, on some of its rows, and what exporting needs."""

import csv
import importlib.util

import pytest
from export_matrix import FOLDER, backbone_row

from attentive_probes.serving.export_formats import check_installed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "swin", "siglip2_vision_model"])
def test_the_table_of_exports_is_true(name):
    """Rows of the documented table are found again: what exports, for any size or not, and the reason."""
    table = csv.DictReader((FOLDER / "backbones.csv").read_text().splitlines())
    row = next(row for row in table if row["backbone"] == name)
    found = backbone_row(name)
    assert all(found[key][:60] == row[key][:60] for key in ("heads", "any_size", "reason"))
    assert not row["heads"] or float(found["difference"]) < 1e-4 > float(row["difference"])


def test_a_missing_package_is_named(monkeypatch):
    """Without the runtime, the error says what to install."""
    found = importlib.util.find_spec
    place = "attentive_probes.serving.export_formats.find_spec"
    monkeypatch.setattr(place, lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'attentive-probes\[export\]'"):
        check_installed("onnx")
    check_installed("torch")
