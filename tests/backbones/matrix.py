"""The matrix of backbones: every vision model type of transformers, tiny and random, and what is offered of it.

`python tests/backbones/matrix.py` writes it again; a test compares it with the one that is shipped.
"""

import csv
import importlib
import importlib.util
import json
from pathlib import Path

import torch

import torchvision_shim  # noqa: F401

# isort: split
import transformers as hf

from attentive_probes.backbones import find_geometry, load_backbone_config
from attentive_probes.backbones.supported import COLUMNS, SUPPORTED

TABLE = Path(__file__).parent.parent / "golden" / "backbones.csv"
ROWS = {row["name"]: row for row in csv.DictReader(TABLE.read_text().splitlines())}
HAS_TIMM = importlib.util.find_spec("timm") is not None


def size_of(name: str) -> tuple[int, int]:
    return (int(ROWS[name]["test_image_size"]),) * 2


def config_of(name: str) -> hf.PreTrainedConfig:
    row = ROWS[name]
    module = importlib.import_module(row["modeling_module"].replace(".modeling_", ".configuration_"))
    return getattr(module, row["config_class"])(**json.loads(row["tiny_kwargs"]))


def save(name: str, folder: Path) -> str:
    """Write a random checkpoint of a row and an image processor that fits it."""
    row = ROWS[name]
    torch.manual_seed(0)
    model = getattr(importlib.import_module(row["modeling_module"]), row["model_class"])(config_of(name))
    with torch.no_grad():  # strong weights, so that every part matters
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1 and "position" not in key:
                torch.nn.init.xavier_normal_(parameter.flatten(1))
    model.save_pretrained(folder)
    height, width = size_of(name)
    hf.ViTImageProcessorPil(size={"height": height, "width": width}).save_pretrained(folder)
    return str(folder)


def describe(name: str, folder: Path) -> dict[str, str]:
    """The entry of one row: which tokens, which taps, or why not."""
    config_of(name).save_pretrained(folder)
    entry = dict.fromkeys(COLUMNS, "") | {"backbone": name, "model_type": ROWS[name]["model_type"]}
    try:
        geometry = find_geometry(load_backbone_config(str(folder)), size_of(name))
    except ValueError as error:
        return entry | {"status": str(error)}
    layout = geometry.tokens
    kinds = [kind for kind in ("cls", "registers") if layout.count(kind)]
    return entry | {
        "tokens": " + ".join([*kinds, "patches" if geometry.num_layers else "patches in stages"]),
        "taps": " ".join(geometry.offered),
        "status": "works",
    }


if __name__ == "__main__":
    import tempfile

    shipped = {row["backbone"]: row for row in csv.DictReader(SUPPORTED.read_text().splitlines())}
    with SUPPORTED.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name in ROWS:
            needs_timm = name.startswith("timm") and not HAS_TIMM
            writer.writerow(shipped[name] if needs_timm else describe(name, Path(tempfile.mkdtemp())))
