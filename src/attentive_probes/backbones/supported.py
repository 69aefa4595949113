"""Which vision model types of transformers can be read, as the tests found it."""

from __future__ import annotations

import csv
from pathlib import Path

SUPPORTED = Path(__file__).parent / "supported.csv"
COLUMNS = ("backbone", "model_type", "tokens", "taps", "status")
WORKS = "works"


def supported_backbones() -> list[dict[str, str]]:
    """One entry per backbone, by `COLUMNS`; `status` is `works`, or the reason why not."""
    return list(csv.DictReader(SUPPORTED.read_text("utf-8").splitlines()))
