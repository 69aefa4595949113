from environment import LOCAL_HUB

# isort: split
import pytest
import torch

import torchvision_shim  # noqa: F401

# isort: split
import datasets
import huggingface_hub
import yaml

from local_hub import TOKEN
from tiny import image_dataset, save_tiny_backbone

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


def write_recipe(tiny_backbone, tmp_path):
    """A small recipe over Parquet files: 40 training, 21 validation and 23 test images."""
    (tmp_path / "data").mkdir()
    for split, count in (("train", 40), ("validation", 21), ("test", 23)):
        image_dataset(count, seed=count).to_parquet(tmp_path / "data" / f"{split}.parquet")
    content = {
        "backbone": {"name": tiny_backbone("vit")},
        "data": {
            "dataset": str(tmp_path / "data"),
            "validation_split": "validation",
            "test_split": "test",
            "augmentation": {"crop_scale": [0.7, 1.0], "flip": False},
        },
        "heads": {
            "gap": {"pooling": "mean", "learning_rate": 0.05},
            "ep": {"pooling": "ep", "options": {"num_queries": 4}, "tokens": ["cls", "patches"]},
        },
        "train": {
            "output_dir": str(tmp_path / "run"),
            "num_train_epochs": 4,
            "batch_size": 8,
            "eval_batch_size": 8,
            "learning_rate": 0.02,
        },
        "evaluation": {"baseline": "gap", "attention_head": "ep", "num_images": 99},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


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
