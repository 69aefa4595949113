"""Golden files: tensors by group, and their metadata."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

FOLDER = Path(__file__).parents[1] / "golden"


class Golden(NamedTuple):
    """One golden file."""

    tensors: dict[str, torch.Tensor]
    head: str
    constructor: dict

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors `<prefix>.<name>` under their names."""
        return {k.removeprefix(prefix + "."): v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def load_golden(name: str) -> Golden:
    """Read `golden/<name>.safetensors`."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
        return Golden(
            tensors, metadata.get("head", metadata["format"].split("-")[1]), json.loads(metadata["constructor"])
        )


def assert_golden(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """`max |a - b| <= tolerance * max(1, max |b|)`."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item()), error
