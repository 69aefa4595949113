"""What a choice leaves: every candidate with its price, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from attentive_probes.analysis.figures.drawing import has_matplotlib
from attentive_probes.choosing.choice_figure import choice_figure
from attentive_probes.choosing.choose import Chosen
from attentive_probes.files.writing import write_whole


def save_choice(found: Chosen, folder: Path) -> None:
    """Write `choice.json` and, with matplotlib, `choice.png`."""
    content = asdict(found)
    write_whole(folder / "choice.json", json.dumps(content, indent=2, default=float) + "\n", durable=False)
    if has_matplotlib():
        choice_figure(found.table, found.curve, folder / "choice.png")
