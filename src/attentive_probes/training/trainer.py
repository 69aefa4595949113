"""The one training loop: all heads of a sweep over one backbone pass, on Accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accelerate.utils import set_seed
from datasets import IterableDataset
from transformers import BaseImageProcessor

from attentive_probes.data.augment import Augmentation
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.label_tables import adopt_names
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.steps import StepLoader
from attentive_probes.evaluation.details import TestDetails
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.run_files import ANSWERS, PROBES, RESULTS
from attentive_probes.evaluation.split_scores import Scores
from attentive_probes.hub.model_card import card_files
from attentive_probes.naming import check_parts
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.saving import write_files
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.processes import make_accelerator
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.calibration import calibrate
from attentive_probes.training.checkpoint import (
    check_output_dir,
    claimed,
    clear_output_dir,
    save_whole,
)
from attentive_probes.training.epochs import run_epochs
from attentive_probes.training.final_test import note_test, save_answers, score_test
from attentive_probes.training.loop import TrainingLoop
from attentive_probes.training.outcome import take_best
from attentive_probes.training.report import check_baseline, empty_results, head_rates, note_doubts, note_sizes
from attentive_probes.training.resume import goes_on, identity_of, load_finished, save_tested
from attentive_probes.training.rules import fit_to_images
from attentive_probes.training.selection import EpochSelection
from attentive_probes.training.splits import (
    AnyDataset,
    AnySplit,
    check_batches,
    class_weights_of,
    heads_by_seed,
    num_images_of,
    open_any,
    split_loader,
)
from attentive_probes.training.targets import TargetScale


class ProbeTrainer:
    """Trains the heads of a sweep (or of a single probe, in place) and keeps each at its best validation epoch.

    Everything that can be wrong with arguments and data is checked here, before any training.

    Args:
        model: The heads and their backbone.
        arguments: Training settings.
        train_dataset: Images to learn from, or a token cache of them.
        validation_dataset: Images on which epoch and head are selected; never the test split.
        images: Columns, and the policy for images that cannot be read.
        augmentation: What is random about training images, for instance `DEFAULT_AUGMENTATION` (crops and flips); by
            default nothing.
        image_processor: By default the one that came with the backbone.
        shuffle_buffer: Images of a training stream that wait to be drawn from; 0 keeps its order.
        groups: Row of a validation image -> what it belongs to, by which intervals are clustered; `None` for no groups.

    Attributes:
        results: What is known so far.
        chooses_later: Whether the winner is chosen after training, among more than the heads; whoever does so calls
            `calibrate` then.

    Raises:
        ValueError: If the output folder holds another run, a split or an argument does not fit, or there is no image
            processor.
    """

    def __init__(
        self,
        model: ProbeSweep | ProbeForImageClassification,
        arguments: ProbeTrainingArguments,
        train_dataset: AnyDataset,
        validation_dataset: AnyDataset,
        *,
        images: ImageOptions | None = None,
        augmentation: Augmentation | None = None,
        image_processor: BaseImageProcessor | None = None,
        shuffle_buffer: int = 1000,
        groups: Mapping[int, str] | None = None,
    ):
        self._model, self.sweep = model, model if isinstance(model, ProbeSweep) else ProbeSweep.from_probe(model)
        self.arguments, self.folder = arguments, Path(arguments.output_dir)
        check_parts("head", self.sweep.runs)
        check_output_dir(self.folder, arguments.overwrite, arguments.resume)
        self.processor = image_processor or self.sweep.image_processor
        if self.processor is None:
            raise ValueError("The backbone came without a usable image processor; pass image_processor=...")
        self.sweep.image_processor = self.processor
        self.images, self.augmentation, self.shuffle_buffer = images or ImageOptions(), augmentation, shuffle_buffer
        self.accelerator = make_accelerator(arguments.report_to, arguments.output_dir)
        if isinstance(train_dataset, IterableDataset) and arguments.max_steps < 1:
            raise ValueError("A stream has no known length; set max_steps to the number of optimizer steps.")
        adopt_names(self.sweep.config, train_dataset, self.images.label_column)
        self.encoder = LabelEncoder.of_probe(self.sweep.config, self.images.label_separator)
        self.train_split = self.open_split("train", train_dataset)
        self.validation_split = self.open_split("validation", validation_dataset)
        self.arguments = arguments = fit_to_images(arguments, num_images_of(self.train_split))
        check_batches(self.train_split, self.sweep, arguments)
        self.by_seed = heads_by_seed(self.sweep, arguments, self.train_split)
        self.class_weights = class_weights_of(self.train_split, arguments, self.encoder)
        self.scale = TargetScale.of(self.train_split, self.encoder)
        self.results = empty_results(self.sweep, arguments, self.accelerator.num_processes)
        named = {"train": self.train_split, "validation": self.validation_split}
        note_sizes(self.results, self.sweep.config, arguments, **named)
        self.identity = identity_of(self.sweep, named, augmentation, self.processor)
        goes_on(self.folder, arguments, self.results, self.identity)
        self._tested, self.groups, self.chooses_later = False, groups, False
        self.baseline_scores: Scores | None = None
        self._attachments: list[tuple[str | None, str, str | bytes]] = []

    def train(self) -> SweepResults:
        """Train, and leave every head at its best validation epoch.

        Writes `results.json`, `probes/<head>/` (each loadable by `from_pretrained`), and `checkpoints/` after every
        epoch. A resumed run that was tested before is taken up as it is; what is missing of its files is written anew.

        Raises:
            ValueError: If there is no training image, or all heads diverge.
        """
        with claimed(self.folder):
            return self._train()

    def _train(self) -> SweepResults:
        resumed = goes_on(self.folder, self.arguments, self.results, self.identity)  # now that nobody else writes there
        if self.accelerator.is_main_process and not resumed:
            clear_output_dir(self.folder)
        selection = EpochSelection(self.results.heads, self.results.selection_metric, not self.arguments.select_epoch)
        if resumed and (done := load_finished(self.folder, selection)) is not None:
            self.results, self.baseline_scores = done
            self._tested = True
            self._finish(selection)
            return self.results
        set_seed(self.arguments.seed, device_specific=True)  # dropout and noise
        run_epochs(self, self._loop(), selection, resumed)
        self._finish(selection)
        return self.results

    def _loop(self) -> TrainingLoop:
        return TrainingLoop(
            self.sweep,
            self.arguments,
            head_rates(self.sweep, self.arguments),
            self.accelerator,
            [(names, self.loader(self.train_split, train=True, seed=seed)) for seed, names in self.by_seed.items()],
            self.loader(self.validation_split, train=False),
            self.class_weights,
            self.scale,
        )

    def open_split(self, name: str, dataset: AnyDataset) -> AnySplit:
        """A split, checked and open for reading, for instance the test split before training starts; see `open_any`.

        Raises:
            ValueError: If its columns, labels, images or cached tokens do not fit.
        """
        shuffle = (self.shuffle_buffer, self.arguments.seed) if name == "train" else None
        return open_any(name, dataset, self.sweep, self.images, self.encoder, shuffle)

    def test(
        self, dataset: AnyDataset, baseline: str | None = None, details: TestDetails | None = None
    ) -> SweepResults:
        """Score the test split, once, with every head at its selected epoch, and add it to `results.json`.

        Args:
            dataset: The test split, also as `open_split` gave it.
            baseline: Name of the head that the others are compared with; the selected head by default.
            details: What else is wanted of the selected head and the baseline.

        Raises:
            ValueError: If the split was scored before, or there is no head of that name.
        """
        if self._tested:
            raise ValueError("The test split was scored before; a second look would be a selection on it.")
        baseline = check_baseline(baseline, self.results)
        split = self.open_split("test", dataset)
        with claimed(self.folder):
            return self._test(split, baseline, details or TestDetails())

    def _test(self, split: AnySplit, baseline: str, details: TestDetails) -> SweepResults:
        scores = score_test(self, split, baseline, details)
        self.results.baseline, self._tested, self.baseline_scores = baseline, True, scores[baseline]
        note_sizes(self.results, self.sweep.config, self.arguments, test=split)
        note_test(self, scores, split, baseline, details)
        self.results.correct_for_number()
        if self.accelerator.is_main_process:
            save_tested(self.folder, scores[baseline], scores[self.results.best.name], self.sweep, split)
            if details.answers:
                save_answers(scores, split, self.folder / ANSWERS, details)
        self.results.data["test"]["images"] = scores[baseline].num_images  # also of a stream: those that count
        note_doubts(self.results)
        self.save_results()
        return self.results

    @property
    def is_tested(self) -> bool:
        """Whether the test split was scored, by this run or by the one that it resumes."""
        return self._tested

    def save_results(self) -> None:
        """Write `results.json` as it is now, and the cards and files of all probes anew."""
        if self.accelerator.is_main_process:
            self.results.save(self.folder / RESULTS)
            for name in self.sweep.runs:
                write_files(self.probe(name).files, self.folder / PROBES / name)

    def probe(self, name: str | None = None) -> ProbeForImageClassification:
        """The probe with head `name`, by default the selected one, with its card and results, ready to be pushed."""
        name = name or self.results.best.name
        probe = self.sweep.probe(name) if isinstance(self._model, ProbeSweep) else self._model
        probe.config.temperature = self.results.head(name).temperature
        probe.files = card_files(self.results, name, probe.config, self.attached(name))
        return probe

    def attach(self, path: str, content: str | bytes, head: str | None = None) -> None:
        """Save a file, such as a recipe or a picture, with every probe, or with one head's alone."""
        self._attachments.append((head, path, content))

    def attached(self, name: str) -> dict[str, str | bytes]:
        """Path -> content of the files that are saved with the probe of a name."""
        return {path: content for head, path, content in self._attachments if head in (None, name)}

    def loader(self, split: AnySplit, *, train: bool, seed: int = 0) -> StepLoader:
        """The loader of this process's share of a split; `seed` is that of order and views in training."""
        assert self.processor is not None
        options = (self.processor, self.sweep.backbone, self.augmentation, self.arguments, self.accelerator)
        return split_loader(split, *options, train=train, seed=seed)

    def _finish(self, selection: EpochSelection) -> None:
        for tracker in self.accelerator.trackers:  # end_training would also end the process group
            tracker.finish()
        take_best(self.sweep, selection, self.scale)
        if not self.chooses_later:
            calibrate(self)
        if self.accelerator.is_main_process:
            for name in self.sweep.runs:
                save_whole(self.probe(name), self.folder / PROBES / name)
        self.save_results()
        self.accelerator.wait_for_everyone()
