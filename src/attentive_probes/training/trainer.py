"""The one training loop: all heads of a sweep over one backbone pass, on Accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import IterableDataset
from transformers import BaseImageProcessor

from attentive_probes.checks import check_parts
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder, adopt_names
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.split import Split
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.run_files import HEAD_PREDICTIONS, RESULTS, probe_folder
from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.hub.model_card import card_files
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.probe.files.saving import write_files
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.calibration import calibrate
from attentive_probes.training.state.checkpoint import (
    check_output_dir,
    claimed,
    clear_output_dir,
    save_whole,
)
from attentive_probes.training.state.head_weights import take_best
from attentive_probes.training.state.kept_epochs import EpochSelection
from attentive_probes.training.state.notes import (
    check_baseline,
    empty_results,
    head_rates,
    note_diagnostics,
    note_sizes,
)
from attentive_probes.training.state.resume import goes_on, identity_of, load_finished, save_tested
from attentive_probes.training.state.run_state import Run
from attentive_probes.training.steps.epochs import run_epochs
from attentive_probes.training.steps.loop import TrainingLoop
from attentive_probes.training.steps.score_test import note_test, save_head_predictions, score_test
from attentive_probes.training.steps.split_use import (
    AnyDataset,
    check_batches,
    class_weights_of,
    heads_by_seed,
    open_any,
    scale_of,
)
from attentive_probes.training.steps.step_count import fit_to_images


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
        run: What the steps of the run share.
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
        sweep = model if isinstance(model, ProbeSweep) else ProbeSweep.from_probe(model)
        folder, self.images, self.shuffle_buffer = Path(arguments.output_dir), images or ImageOptions(), shuffle_buffer
        check_parts("head", sweep.runs)
        check_output_dir(folder, arguments.overwrite, arguments.resume)
        processor = image_processor or sweep.image_processor
        if processor is None:
            raise ValueError("The backbone came without a usable image processor; pass image_processor=...")
        sweep.image_processor = processor
        accelerator = make_accelerator(arguments.report_to, arguments.output_dir)
        if isinstance(train_dataset, IterableDataset) and arguments.max_steps < 1:
            raise ValueError("A stream has no known length; set max_steps to the number of optimizer steps.")
        adopt_names(sweep.config, train_dataset, self.images.label_column)
        self._model, self.encoder = model, LabelEncoder.of_probe(sweep.config, self.images.label_separator)
        shuffle = (shuffle_buffer, arguments.seed)
        train = open_any("train", train_dataset, sweep, self.images, self.encoder, shuffle)
        validation = open_any("validation", validation_dataset, sweep, self.images, self.encoder, None)
        arguments = fit_to_images(arguments, train.num_images)
        check_batches(train, sweep, arguments)
        by_seed = heads_by_seed(sweep, arguments, train)
        weights, scale = class_weights_of(train, arguments, self.encoder), scale_of(train, self.encoder)
        results = empty_results(sweep, arguments, accelerator.num_processes)
        named = {"train": train, "validation": validation}
        note_sizes(results, sweep.config, arguments, **named)
        identity = identity_of(sweep, named, augmentation, processor)
        goes_on(folder, arguments, results, identity)
        self.run = Run(
            sweep,
            arguments,
            accelerator,
            folder,
            processor,
            augmentation,
            train,
            validation,
            by_seed,
            weights,
            scale,
            groups,
            identity,
            results,
        )
        self.chooses_later = False
        self._attachments: list[tuple[str | None, str, str | bytes]] = []

    @property
    def sweep(self) -> ProbeSweep:
        """The heads and their backbone."""
        return self.run.sweep

    @property
    def results(self) -> SweepResults:
        """What is known so far."""
        return self.run.results

    @property
    def arguments(self) -> ProbeTrainingArguments:
        """Training settings, fitted to the number of images."""
        return self.run.arguments

    @property
    def accelerator(self) -> Accelerator:
        """Where the run takes place."""
        return self.run.accelerator

    @property
    def folder(self) -> Path:
        """Where the files of the run lie."""
        return self.run.folder

    def train(self) -> SweepResults:
        """Train, and leave every head at its best validation epoch.

        Writes `results.json`, `probes/<head>/` (each loadable by `from_pretrained`), and `checkpoints/` after every
        epoch. A resumed run that was tested before is taken up as it is; what is missing of its files is written again.

        Raises:
            ValueError: If there is no training image, or all heads diverge.
        """
        with claimed(self.folder):
            return self._train()

    def _train(self) -> SweepResults:
        run = self.run
        # Once more, now that nobody else writes there.
        resumed = goes_on(run.folder, run.arguments, run.results, run.identity)
        if run.accelerator.is_main_process and not resumed:
            clear_output_dir(run.folder)
        selection = EpochSelection(run.results.heads, run.results.selection_metric, not run.arguments.select_epoch)
        if resumed and (done := load_finished(run.folder, selection)) is not None:
            run.results, run.baseline_scores = done
            run.is_tested = True
        else:
            # Of dropout and noise.
            set_seed(run.arguments.seed, device_specific=True)
            run_epochs(run, self._loop(), selection, resumed)
        self._finish(selection)
        return run.results

    def _loop(self) -> TrainingLoop:
        run = self.run
        return TrainingLoop(
            run.sweep,
            run.arguments,
            head_rates(run.sweep, run.arguments),
            run.accelerator,
            [(names, run.loader(run.train_split, train=True, seed=seed)) for seed, names in run.by_seed.items()],
            run.loader(run.validation_split, train=False),
            run.class_weights,
            run.scale,
        )

    def open_split(self, name: str, dataset: AnyDataset) -> Split:
        """A split, checked and open for reading, for instance the test split before training starts; see `open_any`.

        Raises:
            ValueError: If its columns, labels, images or cached tokens do not fit.
        """
        shuffle = (self.shuffle_buffer, self.arguments.seed) if name == "train" else None
        return open_any(name, dataset, self.sweep, self.images, self.encoder, shuffle)

    def test(
        self, dataset: AnyDataset, baseline: str | None = None, details: DetailOptions | None = None
    ) -> SweepResults:
        """Score the test split, once, with every head at its selected epoch, and add it to `results.json`.

        Args:
            dataset: The test split, also as `open_split` gave it.
            baseline: Name of the head that the others are compared with; the selected head by default.
            details: What else is wanted of the selected head and the baseline.

        Raises:
            ValueError: If the split was scored before, or there is no head of that name.
        """
        if self.is_tested:
            raise ValueError("The test split was scored before; a second look would be a selection on it.")
        baseline = check_baseline(baseline, self.results)
        split = self.open_split("test", dataset)
        with claimed(self.folder):
            return self._test(split, baseline, details or DetailOptions())

    def _test(self, split: Split, baseline: str, details: DetailOptions) -> SweepResults:
        run, results = self.run, self.run.results
        scores = score_test(run, split, baseline, details)
        results.baseline, run.is_tested, run.baseline_scores = baseline, True, scores[baseline]
        note_sizes(results, run.sweep.config, run.arguments, test=split)
        note_test(run, scores, split, baseline, details)
        results.correct_for_number()
        if run.accelerator.is_main_process:
            best = results.best
            save_tested(run.folder, scores[baseline], scores[best.name], run.sweep, split, best.temperature)
            if details.predictions:
                save_head_predictions(scores, split, run.folder / HEAD_PREDICTIONS, details)
        # Also of a stream: the images that count.
        results.data["test"]["images"] = scores[baseline].num_images
        note_diagnostics(results)
        self.save_results()
        return results

    @property
    def is_tested(self) -> bool:
        """Whether the test split was scored, by this run or by the one that it resumes."""
        return self.run.is_tested

    def save_results(self) -> None:
        """Write `results.json` as it is now, and the cards and files of all probes again."""
        if self.accelerator.is_main_process:
            self.results.save(self.folder / RESULTS)
            for name in self.sweep.runs:
                write_files(self.probe(name).files, probe_folder(self.folder, name))

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

    def _finish(self, selection: EpochSelection) -> None:
        for tracker in self.accelerator.trackers:  # end_training would also end the process group
            tracker.finish()
        take_best(self.sweep, selection, self.run.scale)
        if not self.chooses_later:
            calibrate(self.run)
        if self.accelerator.is_main_process:
            for name in self.sweep.runs:
                save_whole(self.probe(name), probe_folder(self.folder, name))
        self.save_results()
        self.accelerator.wait_for_everyone()
