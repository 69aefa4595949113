"""The table of what exports, on some of its rows."""

import csv

import pytest
from export_matrix import FOLDER, backbone_row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "swin", "siglip2_vision_model"])
def test_the_table_of_exports_is_true(name):
    """Rows of the documented table are found again: what exports, for any size or not, and the reason."""
    table = csv.DictReader((FOLDER / "backbones.csv").read_text().splitlines())
    row = next(row for row in table if row["backbone"] == name)
    found = backbone_row(name)
    assert all(found[key][:60] == row[key][:60] for key in ("heads", "any_size", "reason"))
    assert not row["heads"] or float(found["difference"]) < 1e-4 > float(row["difference"])
