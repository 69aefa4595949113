"""Pretrains the embedded backbone from scratch: a small masked autoencoder on unlabelled Fashion-MNIST images.

    python recipes/pretrain/mae_fashion_mnist.py <folder of the idx files> outputs/mae-tiny-fashion

About an hour on two idle CPU cores. Another machine or thread count gives other weights of the same quality. With
`--probe-every 5`, a linear probe and EP learn beside it, and `online.png` shows what the encoder knows as it trains.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fashion_mnist_slice import read_part
from torch import Tensor, nn
from tqdm.auto import trange
from transformers import ViTImageProcessorPil, ViTMAEConfig, ViTMAEForPreTraining, get_cosine_schedule_with_warmup

from attentive_probes import HeadConfig, OnlineProbes
from attentive_probes.analysis.figures.online_figure import online_figure
from attentive_probes.data.load import load_split
from attentive_probes.tokens import TokenLayout, Tokens
from attentive_probes.training.online_callbacks import undisturbed

MEAN, STD = 0.286, 0.353
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, BETAS, CLIP_NORM = 256, 2e-3, 0.05, (0.9, 0.95), 1.0
CONFIG = ViTMAEConfig(
    image_size=28,
    patch_size=4,
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=4,
    decoder_hidden_size=64,
    decoder_intermediate_size=256,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    mask_ratio=0.75,
    norm_pix_loss=True,
)


def build_model() -> ViTMAEForPreTraining:
    """A fresh masked autoencoder: Xavier linear layers, sin-cos positions (a fresh transformers model has zeros)."""
    model = ViTMAEForPreTraining(CONFIG)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    side = CONFIG.image_size // CONFIG.patch_size
    for positions in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        positions.data.copy_(sincos_positions(positions.shape[-1], side))
    return model


def sincos_positions(width: int, side: int) -> Tensor:
    """Fixed 2-D sin-cos positions `(1, 1 + side^2, width)`: half the width for columns, half for rows, cls zero."""
    rates = 10_000 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    grid = torch.cat([axis.repeat(side, 1), axis.repeat_interleave(side, 0)], dim=1)
    return torch.cat([torch.zeros(1, width), grid])[None]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift images (B, 28, 28) of bytes by up to two pixels, flip half of them, normalize: (B, 3, 28, 28)."""
    count = len(images)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    windows = padded.unfold(1, 28, 1).unfold(2, 28, 1)  # (B, 5, 5, 28, 28)
    rows, columns = torch.randint(5, (2, count), generator=generator)
    views = windows[torch.arange(count), rows, columns]
    flipped = torch.rand(count, generator=generator) < 0.5
    views = torch.where(flipped[:, None, None], views.flip(-1), views)
    return ((views / 255 - MEAN) / STD)[:, None].expand(-1, 3, -1, -1)


class OnlineCurve:
    """A linear probe and EP on the encoder in training, scored on held-out images after every 100 steps."""

    def __init__(self, every: int, seed: int):
        heads = {"linear (mean patch)": HeadConfig("mean"), "EP-8": HeadConfig("ep", {"num_queries": 8})}
        self.probes = OnlineProbes(heads, num_labels=10, learning_rate=3e-3)
        self.every, self.history = every, []
        self.generator = torch.Generator().manual_seed(seed)
        self.train, self.validation = (labelled_images(split) for split in ("train", "validation"))

    def look(self, step: int, model: ViTMAEForPreTraining) -> None:
        """After a step of the encoder: perhaps a step of the heads, perhaps their scores."""
        with undisturbed(model):
            if step % self.every == 0:
                batch = torch.randint(len(self.train[0]), (BATCH_SIZE // 2,), generator=self.generator)
                self.probes.update(all_tokens(model, self.train[0][batch]), self.train[1][batch])
            if step % 100 == 0:
                for pixels, labels in zip(*(part.split(500) for part in self.validation), strict=True):
                    self.probes.observe(all_tokens(model, pixels), labels)
                found = {f"{name}/top1": metrics["top1"] for name, metrics in self.probes.metrics().items()}
                self.history.append({"step": step, **found})


def labelled_images(split: str) -> tuple[Tensor, Tensor]:
    """Normalized images (N, 3, 28, 28) and labels (N,) of a split of the embedded slice."""
    data = load_split("embedded:fashion-mnist", split).with_format("numpy")
    images = torch.from_numpy(data["image"][:].copy())
    pixels = ((images / 255 - MEAN) / STD)[:, None].expand(-1, 3, -1, -1)
    return pixels, torch.from_numpy(data["label"][:].copy())


def all_tokens(model: ViTMAEForPreTraining, pixels: Tensor) -> Tokens:
    """What the encoder makes of whole images: nothing masked, the patches in their order."""
    side = CONFIG.image_size // CONFIG.patch_size
    ratio, model.config.mask_ratio = model.config.mask_ratio, 0.0
    states = model.vit(pixels, noise=torch.arange(side**2).expand(len(pixels), -1)).last_hidden_state
    model.config.mask_ratio = ratio
    return TokenLayout(CONFIG.hidden_size, 1, 0, (side, side)).split(states)


def pretrain(
    images: Tensor,
    epochs: float,
    seed: int,
    bfloat16: bool = True,
    look: Callable[[int, ViTMAEForPreTraining], None] | None = None,
) -> tuple[ViTMAEForPreTraining, float]:
    """Train on images (N, 28, 28) of bytes; the model and the mean loss of the last hundred steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build_model().train()
    steps_per_epoch = len(images) // BATCH_SIZE
    steps = math.ceil(epochs * steps_per_epoch)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(steps_per_epoch, steps // 10), steps)
    losses = []
    bar = trange(steps, unit="step")
    for step in bar:
        if step % steps_per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        batch = order[(step % steps_per_epoch) * BATCH_SIZE :][:BATCH_SIZE]
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(augment(images[batch], generator)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix_str(f"loss {np.mean(losses[-100:]):.4f}")
        if look is not None:
            look(step + 1, model)
    return model, float(np.mean(losses[-100:]))


def main() -> None:
    """Pretrain, and write encoder, processor settings and a record of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the official idx files")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--epochs", type=float, default=32.6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="ten times faster on CPUs without bfloat16 arithmetic")
    parser.add_argument("--probe-every", type=int, default=0, help="steps between two steps of online probes; 0: none")
    arguments = parser.parse_args()
    images = torch.from_numpy(read_part(arguments.source, "train")[0].copy())
    curve = OnlineCurve(arguments.probe_every, arguments.seed) if arguments.probe_every else None
    start = time.perf_counter()
    model, loss = pretrain(images, arguments.epochs, arguments.seed, not arguments.float32, curve and curve.look)
    record = {"epochs": arguments.epochs, "seed": arguments.seed, "final_loss": round(loss, 4)}
    record["seconds"] = round(time.perf_counter() - start)
    model.vit.half().save_pretrained(arguments.target)
    config = json.loads((arguments.target / "config.json").read_text())
    (arguments.target / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    processor = ViTImageProcessorPil(size={"height": 28, "width": 28}, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    processor.save_pretrained(arguments.target)
    (arguments.target / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    if curve is not None:
        online_figure(curve.history, arguments.target / "online.png")
        (arguments.target / "online.json").write_text(json.dumps(curve.history, indent=1) + "\n")


if __name__ == "__main__":
    main()
