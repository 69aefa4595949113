"""Pretrains three more backbones of the embedded one's shape, each in its own way, to compare what probes find in them.

    python recipes/pretrain/tiny_vits.py simmim <folder of the idx files> outputs/simmim-tiny-fashion
    python recipes/pretrain/tiny_vits.py simclr <folder of the idx files> outputs/simclr-tiny-fashion
    python recipes/pretrain/tiny_vits.py supervised <folder of the idx files> outputs/supervised-tiny-fashion

- `simmim` (arXiv 2111.09886): mask tokens in place of six tenths of the patches, their pixels from a linear decoder.
- `simclr` (arXiv 2002.05709): two views of an image, each with half of its patches, agree in a projection of the class
  token.
- `supervised`: the class from the class token, on the 49,000 training images that the embedded slice does not hold, so
  that probes learn and are selected on images whose labels the backbone has not seen.

Another machine or thread count gives other weights of the same quality.
"""

from __future__ import annotations

import argparse
import json
import time
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fashion_mnist_slice import read_part, slice_rows
from mae_fashion_mnist import BATCH_SIZE, BETAS, CLIP_NORM, MEAN, STD, augment, sincos_positions
from torch import Tensor, nn
from tqdm.auto import trange
from transformers import (
    ViTConfig,
    ViTForMaskedImageModeling,
    ViTImageProcessorPil,
    ViTModel,
    get_cosine_schedule_with_warmup,
)

from attentive_probes.machine.memory import keep_freed_memory

WEIGHT_DECAY, MASKED, TEMPERATURE, KEPT = 0.05, 29, 0.2, 24  # patches of 49
CONFIG = ViTConfig(
    image_size=28,
    patch_size=4,
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=4,
    encoder_stride=4,
)


def initialize(model: nn.Module) -> None:
    """Xavier linear layers, and positions that start from the sin-cos ones."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, ViTModel):
            side = CONFIG.image_size // CONFIG.patch_size
            module.embeddings.position_embeddings.data.copy_(sincos_positions(CONFIG.hidden_size, side))
            nn.init.normal_(module.embeddings.cls_token, std=0.02)


class Method(nn.Module, ABC):
    """A backbone and what it is trained for.

    Attributes:
        learning_rate: Peak learning rate.
        epochs: Passes over the images.
        vit: The backbone.
    """

    learning_rate = 1e-3
    epochs = 4.0
    vit: ViTModel

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of a batch of images (B, 28, 28) of bytes."""


class SimMim(Method):
    """Masked image modelling with mask tokens in the encoder."""

    learning_rate = 2e-3

    def __init__(self) -> None:
        super().__init__()
        self.model = ViTForMaskedImageModeling(CONFIG)
        self.vit = self.model.vit

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Mean absolute error over the pixels of masked patches."""
        noise = torch.rand(len(images), 49, generator=generator)
        return self.model(augment(images, generator), bool_masked_pos=noise.argsort(1) < MASKED).loss


class SimClr(Method):
    """Contrast of two views."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViTModel(CONFIG, add_pooling_layer=False)
        self.projection = nn.Sequential(
            nn.Linear(128, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64)
        )

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Cross entropy of finding the other view of an image among all views of the batch."""
        pixels = torch.cat([view(images, generator), view(images, generator)])
        states = self.vit.embeddings(pixels)
        chosen = torch.rand(len(pixels), 49, generator=generator).argsort(1)[:, :KEPT] + 1
        patches = states.gather(1, chosen[..., None].expand(-1, -1, states.shape[2]))
        states = torch.cat([states[:, :1], patches], dim=1)
        for layer in self.vit.layers:
            states = layer(states, None)
        vectors = F.normalize(self.projection(self.vit.layernorm(states)[:, 0]), dim=1)
        logits = (vectors @ vectors.T / TEMPERATURE).fill_diagonal_(float("-inf"))
        return F.cross_entropy(logits, torch.arange(len(logits)).roll(len(images)))


class Supervised(Method):
    """Classification by the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViTModel(CONFIG, add_pooling_layer=False)
        self.classifier = nn.Linear(128, 10)

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Cross entropy."""
        states = self.vit(augment(images, generator)).last_hidden_state
        return F.cross_entropy(self.classifier(states[:, 0]), labels, label_smoothing=0.1)


METHODS: dict[str, type[Method]] = {"simmim": SimMim, "simclr": SimClr, "supervised": Supervised}


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of 30 to 100% of the area, flipped or not, brighter or darker, normalized: (B, 3, 28, 28)."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)

    area, ratio = uniform(0.3, 1.0), uniform(-0.25, 0.25).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = (uniform(0, 1) < 0.5) * 2.0 - 1
    corners = torch.zeros(len(images), 2, 3)
    corners[:, 0, 0], corners[:, 1, 1] = width * flip, height
    corners[:, 0, 2], corners[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(corners, [len(images), 1, 28, 28], align_corners=False)
    crops = F.grid_sample(images[:, None].float(), grid, align_corners=False)
    gain, shift = uniform(0.6, 1.4), uniform(-0.1, 0.1)
    pixels = (crops / 255 * gain[:, None, None, None] + shift[:, None, None, None]).clamp(0, 1)
    return ((pixels - MEAN) / STD).expand(-1, 3, -1, -1)


def pretrain(method: Method, images: Tensor, labels: Tensor, epochs: float, seed: int) -> float:
    """Train on images (N, 28, 28) of bytes; the mean loss of the last hundred steps."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = len(images) // BATCH_SIZE
    steps = round(epochs * per_epoch)
    optimizer = torch.optim.AdamW(method.parameters(), method.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    losses = []
    bar = trange(steps, unit="step")
    for step in bar:
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        batch = order[(step % per_epoch) * BATCH_SIZE :][:BATCH_SIZE]
        loss = method.loss(images[batch], labels[batch], generator)
        loss.backward()
        nn.utils.clip_grad_norm_(method.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix_str(f"loss {np.mean(losses[-100:]):.4f}", refresh=False)
    return float(np.mean(losses[-100:]))


def main() -> None:
    """Pretrain, and write the backbone, processor settings and a record of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("source", type=Path, help="folder with the official idx files")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--epochs", type=float, help="by default 4")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    parts = {part: read_part(arguments.source, part) for part in ("train", "t10k")}
    images, labels = (torch.from_numpy(found.copy()) for found in parts["train"])
    if arguments.method == "supervised":
        rows = slice_rows({part: of_part for part, (_, of_part) in parts.items()})
        others = np.setdiff1d(np.arange(len(labels)), np.concatenate([rows["train"], rows["validation"]]))
        images, labels = images[others], labels[others]
    keep_freed_memory()
    torch.manual_seed(arguments.seed)
    method = METHODS[arguments.method]().train()
    initialize(method)
    epochs, start = arguments.epochs or method.epochs, time.perf_counter()
    loss = pretrain(method, images, labels.long(), epochs, arguments.seed)
    record = {"method": arguments.method, "images": len(images), "epochs": epochs, "batch": BATCH_SIZE}
    record |= {"learning_rate": method.learning_rate, "betas": BETAS, "weight_decay": WEIGHT_DECAY}
    record |= {"clip_norm": CLIP_NORM, "seed": arguments.seed, "final_loss": round(loss, 4)}
    record |= {"seconds": round(time.perf_counter() - start), "threads": torch.get_num_threads()}
    method.vit.embeddings.mask_token = None
    method.vit.half().save_pretrained(arguments.target)
    config = json.loads((arguments.target / "config.json").read_text())
    (arguments.target / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    processor = ViTImageProcessorPil(size={"height": 28, "width": 28}, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    processor.save_pretrained(arguments.target)
    (arguments.target / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
