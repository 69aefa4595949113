"""The one training loop: all heads of a sweep over one backbone pass, on Accelerate."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import BaseImageProcessor

from attentive_probes.data.augment import DEFAULT_AUGMENTATION, Augmentation
from attentive_probes.data.batches import Collator, make_loader
from attentive_probes.data.images import ImageOptions, ImageSplit, ImageStream, open_split
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.evaluation.results import HeadResult, SweepResults
from attentive_probes.evaluation.scoring import Scores, score_split
from attentive_probes.modeling_probe import ProbeForImageClassification
from attentive_probes.naming import unknown_name
from attentive_probes.processes import make_accelerator
from attentive_probes.sweep import ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.checkpoint import (
    CHECKPOINTS,
    PROBES,
    RESULTS,
    check_output_dir,
    clear_output_dir,
    head_state,
    save_states,
)
from attentive_probes.training.loop import TrainingLoop
from attentive_probes.training.optimizers import HeadRates
from attentive_probes.training.selection import EpochSelection, selection_metric


class ProbeTrainer:
    """Trains the heads of a sweep (or of a single probe, in place) and keeps each at its best validation epoch.

    Everything that can be wrong with arguments and data is checked here, before any training.

    Args:
        model: The heads and their backbone.
        arguments: Training settings.
        train_dataset: Images to learn from.
        validation_dataset: Images on which epoch and head are selected; never the test split.
        images: Columns, and the policy for images that cannot be read.
        augmentation: What is random about training images; `None` for nothing.
        image_processor: By default the one that came with the backbone.

    Raises:
        ValueError: If the output folder holds another run, a split or an argument does not fit, or there is no image
            processor.
    """

    def __init__(
        self,
        model: ProbeSweep | ProbeForImageClassification,
        arguments: ProbeTrainingArguments,
        train_dataset: Dataset | IterableDataset,
        validation_dataset: Dataset | IterableDataset,
        *,
        images: ImageOptions | None = None,
        augmentation: Augmentation | None = DEFAULT_AUGMENTATION,
        image_processor: BaseImageProcessor | None = None,
    ):
        self.sweep = model if isinstance(model, ProbeSweep) else ProbeSweep.from_probe(model)
        self.arguments = arguments
        self.folder = Path(arguments.output_dir)
        check_output_dir(self.folder, arguments.overwrite)
        self.processor = image_processor or self.sweep.image_processor
        if self.processor is None:
            raise ValueError("The backbone came without a usable image processor; pass image_processor=...")
        self.sweep.image_processor = self.processor
        self.images, self.augmentation = images or ImageOptions(), augmentation
        self.accelerator = make_accelerator(
            arguments.mixed_precision, arguments.gradient_accumulation_steps, arguments.seed
        )
        arguments.check_processes(self.accelerator.num_processes)
        if isinstance(train_dataset, IterableDataset) and arguments.max_steps < 1:
            raise ValueError("A stream has no known length; set max_steps to the number of optimizer steps.")
        self.encoder = LabelEncoder(self.sweep.config)
        self.train_split = self.open_split("train", train_dataset)
        self.validation_split = self.open_split("validation", validation_dataset)
        self.results = self._empty_results()
        self._tested = False

    def train(self) -> SweepResults:
        """Train, and leave every head at its best validation epoch.

        Writes `results.json`, `probes/<head>/` (each loadable by `from_pretrained`) and `checkpoints/` with the
        tensors of all heads at their best and at the last epoch, renewed after every epoch.
        """
        self.accelerator.wait_for_everyone()  # all processes have looked at the folder before one writes to it
        if self.accelerator.is_main_process:
            clear_output_dir(self.folder)
        loop = TrainingLoop(
            self.sweep,
            self.arguments,
            self.rates(),
            self.accelerator,
            self.loader(self.train_split, train=True),
            self.loader(self.validation_split, train=False)[0],
        )
        selection = EpochSelection(self.results.heads, self.results.selection_metric)
        start = time.perf_counter()
        epoch = 0
        while not loop.finished:
            epoch += 1
            losses = loop.run_epoch(epoch)
            validation = {name: scores.metrics(self.sweep.config) for name, scores in loop.evaluate().items()}
            self.results.seconds = time.perf_counter() - start
            selection.update(epoch, self.results.seconds, self.sweep.heads, losses, validation)
            self.results.data |= self._sizes()
            self._checkpoint(selection)
            loop.show(self.results)
        loop.close()
        for name, head in self.sweep.heads.items():
            head.load_state_dict(selection.states[name])
        self._save_probes()
        return self.results

    def open_split(self, name: str, dataset: Dataset | IterableDataset) -> ImageSplit | ImageStream:
        """Check a split and open it for reading, for instance the test split before the training starts.

        Raises:
            ValueError: If its columns, labels or images do not fit.
        """
        return open_split(name, dataset, self.images, self.encoder)

    def test(
        self, dataset: Dataset | IterableDataset | ImageSplit | ImageStream, baseline: str | None = None
    ) -> SweepResults:
        """Score the test split, once, with every head at its selected epoch, and add it to `results.json`.

        Args:
            dataset: The test split, as it is or as `open_split` gave it.
            baseline: Name of the head that the others are compared with, image by image; the selected head by default.

        Raises:
            ValueError: If the split was scored before, or there is no head of that name.
        """
        if self._tested:
            raise ValueError("The test split was scored before; a second look would be a selection on it.")
        baseline = baseline or self.results.best.name
        check_baseline(baseline, self.sweep)
        split = dataset if isinstance(dataset, ImageSplit | ImageStream) else self.open_split("test", dataset)
        scores = self.score(split)
        for result in self.results.heads:
            result.test = scores[result.name].test_metrics(scores[baseline], self.sweep.config)
        self.results.baseline, self._tested = baseline, True
        self.results.data["test"] = self._size(split)
        if self.accelerator.is_main_process:
            self.results.save(self.folder / RESULTS)
        return self.results

    def score(self, split: ImageSplit | ImageStream) -> dict[str, Scores]:
        """Scores of every head on a split, each image once."""
        loader = self.accelerator.prepare(self.loader(split, train=False)[0])
        model = self.accelerator.prepare_model(self.sweep, evaluation_mode=True)
        with tqdm(desc="test", unit="img", disable=not self.accelerator.is_main_process, leave=False) as bar:
            return score_split(model, loader, self.accelerator, bar.update)

    def loader(self, split: ImageSplit | ImageStream, *, train: bool) -> tuple[DataLoader, Collator]:
        """The loader of a split, not yet prepared for several processes, and its collator."""
        arguments = self.arguments
        assert self.processor is not None
        collator = Collator(
            split,
            self.processor,
            self.sweep.backbone.geometry.image_size,
            self.augmentation if train else None,
            arguments.seed,
        )
        batch_size = arguments.eval_batch_size
        if train:
            batch_size = arguments.batch_size // arguments.gradient_accumulation_steps
        return make_loader(split, collator, batch_size, train=train, num_workers=arguments.num_workers), collator

    def rates(self) -> dict[str, HeadRates]:
        """Name -> learning rate and weight decay of each head."""
        default = self.arguments
        return {
            name: HeadRates(
                default.learning_rate if run.learning_rate is None else run.learning_rate,
                default.weight_decay if run.weight_decay is None else run.weight_decay,
            )
            for name, run in self.sweep.runs.items()
        }

    def _checkpoint(self, selection: EpochSelection) -> None:
        if self.accelerator.is_main_process:
            checkpoints = self.folder / CHECKPOINTS
            last = {name: head_state(head) for name, head in self.sweep.heads.items()}
            save_states(checkpoints / "last.safetensors", last)
            save_states(checkpoints / "best.safetensors", selection.states)
            self.results.save(self.folder / RESULTS)
        self.accelerator.wait_for_everyone()

    def _save_probes(self) -> None:
        if self.accelerator.is_main_process:
            for name in self.sweep.runs:
                self.sweep.probe(name).save_pretrained(self.folder / PROBES / name)
        self.accelerator.wait_for_everyone()

    def _sizes(self) -> dict[str, Any]:
        return {"train": self._size(self.train_split), "validation": self._size(self.validation_split)}

    def _size(self, split: ImageSplit | ImageStream) -> dict[str, int | None]:
        if isinstance(split, ImageSplit):
            return {"images": len(split), "unreadable": split.num_unreadable}
        return {"images": None, "unreadable": None if self.arguments.num_workers else split.num_unreadable}

    def _empty_results(self) -> SweepResults:
        config = self.sweep.config
        heads, rates = self.sweep.heads, self.rates()
        return SweepResults(
            heads=[
                HeadResult(
                    name=name,
                    head=run.head.to_dict(),
                    learning_rate=rates[name].learning_rate,
                    weight_decay=rates[name].weight_decay,
                    trainable_parameters=sum(p.numel() for p in heads[name].parameters()),
                )
                for name, run in self.sweep.runs.items()
            ],
            selection_metric=selection_metric(self.arguments.selection_metric, config.problem_type),
            backbone={"name": config.backbone_name_or_path, "revision": config.backbone_revision},
            arguments=asdict(self.arguments),
            data=self._sizes(),
            num_processes=self.accelerator.num_processes,
        )


def check_baseline(baseline: str, sweep: ProbeSweep) -> None:
    """Check that the baseline is a head of the sweep.

    Raises:
        ValueError: If it is not.
    """
    if baseline not in sweep.runs:
        raise ValueError(unknown_name("head, as baseline:", baseline, sweep.runs))
