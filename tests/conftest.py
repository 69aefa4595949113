from environment import LOCAL_HUB

# isort: split
import pytest
import torch

import torchvision_shim  # noqa: F401

# isort: split
import datasets
import huggingface_hub
from hypothesis import HealthCheck, settings

from local_hub import TOKEN
from tiny import save_tiny_backbone, write_recipe

torch.set_num_threads(1)
# A busy machine is no fault of a strategy.
settings.register_profile("tests", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """Family -> folder of a tiny random backbone with its image processor, built once per session."""
    folders = {}

    def folder(family: str) -> str:
        if family not in folders:
            folders[family] = save_tiny_backbone(family, tmp_path_factory.mktemp(family.replace("/", "-")))
        return str(folders[family])

    return folder


@pytest.fixture
def recipe_file(tiny_backbone, tmp_path):
    """As `write_recipe`, in the folder of the test."""
    return write_recipe(tiny_backbone, tmp_path)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub on loopback that the real client talks to, as the user `me`; its cache is empty as well."""
    LOCAL_HUB.reset()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return LOCAL_HUB
