"""Tiny random backbones and image datasets, built from configurations alone."""

from pathlib import Path

import numpy as np
import torch
import transformers as hf
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder

SIZE, PATCH, WIDTH = 16, 4, 32
COMMON = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
}


def _clip(config_class, vision_class):
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return config_class(vision_config=vision_class(**COMMON).to_dict(), text_config={**text, "vocab_size": 99})


# Family -> (configuration, model class of the checkpoint, number of class tokens, number of registers).
FAMILIES = {
    "vit": (lambda: hf.ViTConfig(**COMMON), hf.ViTModel, 1, 0),
    "vit_mae": (
        lambda: hf.ViTMAEConfig(
            **COMMON,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=16,
        ),
        hf.ViTMAEForPreTraining,
        1,
        0,
    ),
    "deit": (lambda: hf.DeiTConfig(**COMMON), hf.DeiTModel, 1, 1),
    "dinov2": (lambda: hf.Dinov2Config(**COMMON, mlp_ratio=2), hf.Dinov2Model, 1, 0),
    "dinov2_with_registers": (
        lambda: hf.Dinov2WithRegistersConfig(**COMMON, mlp_ratio=2, num_register_tokens=4),
        hf.Dinov2WithRegistersModel,
        1,
        4,
    ),
    "clip": (lambda: _clip(hf.CLIPConfig, hf.CLIPVisionConfig), hf.CLIPModel, 1, 0),
    "siglip": (lambda: _clip(hf.SiglipConfig, hf.SiglipVisionConfig), hf.SiglipModel, 0, 0),
}


def save_tiny_backbone(family: str, folder: Path) -> Path:
    """Write a random checkpoint of a family, with strong weights so that every part matters, and its processor."""
    make_config, model_class, _, _ = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(make_config())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    hf.ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def image_dataset(num_images: int, num_classes: int = 3, seed: int = 0, size: int = SIZE) -> Dataset:
    """Noise images with a bright band whose place tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    images = []
    for label in labels:
        pixels = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
        band = size // num_classes
        pixels[label * band : (label + 1) * band] += 120
        images.append(PILImage.fromarray(pixels))
    names = [f"band {i}" for i in range(num_classes)]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)


def image_split(config, num_images=20, seed=0, name="train", options=None):
    """`image_dataset` as a split of a probe's configuration."""
    data = image_dataset(num_images, seed=seed)
    return ImageSplit(name, data, options or ImageOptions(), LabelEncoder.of_probe(config))


def write_recipe(tiny_backbone, tmp_path, report=False):
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
        "evaluation": {"baseline": "gap", "attention_head": "ep", "num_images": 2, "report": report},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
