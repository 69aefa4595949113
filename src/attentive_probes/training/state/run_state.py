"""A run in progress: what is trained on which images and where, and what is known so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor
from transformers import BaseImageProcessor

from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.split import Split
from attentive_probes.data.steps import StepLoader
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems import Scores
from attentive_probes.problems.target_scale import TargetScale
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.resume import Identity
from attentive_probes.training.steps.split_use import split_loader


@dataclass
class Run:
    """What the steps of a run share; each of them takes a `Run` and leaves what it found there.

    Args:
        sweep: The heads and their backbone.
        arguments: Training settings, fitted to the number of images.
        accelerator: Where it runs, and among which processes.
        folder: Where its files lie.
        processor: The image processor.
        augmentation: What is random about training images.
        train_split: Images to learn from.
        validation_split: Images on which epoch and head are selected.
        by_seed: Seed -> names of the heads that see the same images at a time.
        class_weights: `(C,)` weights of the loss; `None` weighs all images alike.
        scale: How targets are scaled for training.
        groups: Row of a validation image -> what it belongs to; `None` for no groups.
        identity: What a resumed run must have in common with the one that it continues.
        results: What is known so far.
        baseline_scores: Scores of the baseline on the test split, once that was scored.
        is_tested: Whether the test split was scored, by this run or by the one that it resumes.
    """

    sweep: ProbeSweep
    arguments: ProbeTrainingArguments
    accelerator: Accelerator
    folder: Path
    processor: BaseImageProcessor
    augmentation: Augmentation | None
    train_split: Split
    validation_split: Split
    by_seed: dict[int, list[str]]
    class_weights: Tensor | None
    scale: TargetScale | None
    groups: Mapping[int, str] | None
    identity: Identity
    results: SweepResults
    baseline_scores: Scores | None = None
    is_tested: bool = False

    def loader(self, split: Split, *, train: bool, seed: int = 0) -> StepLoader:
        """The loader of this process's share of a split; `seed` is that of order and views in training."""
        options = (self.processor, self.sweep.backbone, self.augmentation, self.arguments, self.accelerator)
        return split_loader(split, *options, train=train, seed=seed)
