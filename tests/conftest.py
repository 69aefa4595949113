import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small tensors: threads only get in each other's way
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

import pytest
import torch

import torchvision_shim  # noqa: F401

# isort: split
from tiny import save_tiny_backbone

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """Family -> folder of a tiny random backbone with its image processor, built once per session."""
    folders = {}

    def folder(family: str) -> str:
        if family not in folders:
            folders[family] = save_tiny_backbone(family, tmp_path_factory.mktemp(family.replace("/", "-")))
        return str(folders[family])

    return folder
