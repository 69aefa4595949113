"""Where the time of a run goes: images per second of every stage, before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from attentive_probes.data.batches import make_collator
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.machine.timing import seconds_of
from attentive_probes.training.state.notes import head_rates
from attentive_probes.training.steps.optimizers import build_optimizer
from attentive_probes.training.trainer import ProbeTrainer

SECONDS = 2.0  # that each stage is repeated for
FEW = 64  # images of a batch


@dataclass(frozen=True)
class Profile:
    """Images per second of each stage alone, on this machine and for this run.

    Args:
        decode: Reading and decoding, one process.
        process: Augmentation and image processor, one process.
        backbone: One pass of the backbone.
        heads: Forward and backward of all heads, and the optimizer step.
        num_images: Images of the training split.
        num_epochs: Passes over them.
        num_workers: Worker processes that decode and process.
    """

    decode: float
    process: float
    backbone: float
    heads: float
    num_images: int
    num_epochs: int
    num_workers: int

    @property
    def images_in(self) -> float:
        """Images per second that arrive from all workers."""
        return max(self.num_workers, 1) / (1 / self.decode + 1 / self.process)

    def seconds(self, tokens: str) -> float:
        """Estimated training time with `online` or `cached` tokens; validation comes on top.

        Without workers the images arrive between the steps, with workers while they run.
        """
        if tokens == "cached":
            return self.num_images / self._with_images(self.backbone) + self.num_epochs * self.num_images / self.heads
        return self.num_epochs * self.num_images / self._with_images(_in_turn(self.backbone, self.heads))

    def _with_images(self, compute: float) -> float:
        return min(self.images_in, compute) if self.num_workers else _in_turn(self.images_in, compute)

    def advice(self, tokens: str) -> list[str]:
        """What would make the run faster, most effective first."""
        found = []
        if tokens == "online" and self.seconds("online") > 1.2 * self.seconds("cached"):
            found.append("data.tokens=cached runs images and backbone once instead of every epoch")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.images_in < self.backbone and self.num_workers < cores - 1:
            found.append(
                f"images arrive more slowly than the backbone reads them: raise train.num_workers (to {cores - 1})"
            )
        if self.images_in < self.backbone and self.decode < self.process:
            found.append("decoding dominates: data.images.jpeg_min_size decodes large JPEGs at a reduced scale")
        return found

    def table(self) -> Table:
        """One row per stage, for the terminal."""
        table = Table(title=f"{self.num_images:,} training images, {self.num_epochs} epochs")
        table.add_column("stage")
        table.add_column("images per second", justify="right")
        rows = {
            "read and decode, one process": self.decode,
            "augment and process, one process": self.process,
            f"images in, {self.num_workers} workers": self.images_in,
            "backbone": self.backbone,
            "heads and optimizer": self.heads,
        }
        for name, rate in rows.items():
            table.add_row(name, f"{rate:,.0f}")
        table.add_section()
        for tokens in ("online", "cached"):
            table.add_row(f"estimated training time, {tokens}", f"{self.seconds(tokens):,.0f} s")
        return table


def profile_run(trainer: ProbeTrainer) -> Profile:
    """Time every stage of a run on a few batches; the heads of `trainer` take real steps.

    Raises:
        ValueError: If the training split is a stream or a token cache, or an adapter is trained.
    """
    split, sweep, arguments = trainer.run.train_split, trainer.sweep, trainer.arguments
    if not isinstance(split, ImageSplit):
        raise ValueError("A profile needs a training split of images: no stream, no token cache.")
    if sweep.config.lora:
        raise ValueError("A profile tells backbone and heads apart, which an adapter joins; profile with lora=null.")
    assert trainer.run.processor is not None
    rows = list(range(min(FEW, len(split))))
    collator = make_collator(split, trainer.run.processor, sweep.backbone, trainer.run.augmentation, arguments.seed)
    device = trainer.accelerator.device
    sweep.to(device).train()
    examples = split.__getitems__(rows)
    batch = {key: value.to(device) for key, value in collator(examples).items()}
    with torch.no_grad():
        tokens = sweep.read(batch["pixel_values"])
    optimizer = build_optimizer(arguments.optimizer, sweep.heads, head_rates(sweep, arguments), arguments.momentum)

    def step() -> None:
        outputs = sweep(tokens=tokens)
        losses = [ForSequenceClassificationLoss(batch["labels"], out.logits, sweep.config) for out in outputs.values()]
        torch.stack(losses).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    stages: dict[str, Callable[[], Any]] = {
        "decode": lambda: split.__getitems__(rows),
        "process": lambda: collator(examples),
        "backbone": lambda: sweep.read(batch["pixel_values"]),
        "heads": step,
    }
    rates = {name: len(rows) / seconds_of(stage, device, calls=2, at_least=SECONDS) for name, stage in stages.items()}
    return Profile(
        **rates, num_images=len(split), num_epochs=arguments.num_train_epochs, num_workers=arguments.num_workers
    )


def _in_turn(*rates: float) -> float:
    return 1 / sum(1 / rate for rate in rates)
