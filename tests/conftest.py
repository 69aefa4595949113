import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small tensors: threads only get in each other's way
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

import pytest
import torch

import torchvision_shim  # noqa: F401

# isort: split
import yaml

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


@pytest.fixture
def recipe_file(tiny_backbone, tmp_path):
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
