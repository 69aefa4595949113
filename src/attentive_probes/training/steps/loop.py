"""Forward, backward, clip, step: one epoch of all heads at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from attentive_probes.data.batches import inputs_of
from attentive_probes.data.finite import only_finite
from attentive_probes.data.split import Split
from attentive_probes.data.steps import Batch, StepLoader
from attentive_probes.evaluation.runs.attention_spread import Spread, SpreadSums
from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.machine.memory import keep_freed_memory
from attentive_probes.machine.processes import autocast, bar_is_off, on_device
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems import Scores
from attentive_probes.problems.target_scale import TargetScale
from attentive_probes.problems.target_scores import TargetScores
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.head_weights import begin
from attentive_probes.training.state.notes import adapter_rates
from attentive_probes.training.steps.gradients import HeadGradients
from attentive_probes.training.steps.losses import summed_losses, total_weight
from attentive_probes.training.steps.optimizers import HeadRates, build_optimizer, build_schedule
from attentive_probes.training.steps.step_count import total_steps

# Of each seed: its heads, where their batch comes from, and its parts.
Step = list[tuple[list[str], Split, list[Batch]]]


@dataclass
class EpochProgress:
    """How far an epoch is.

    Args:
        steps: Number of steps done.
        totals: `(H,)`, the losses of each head summed over these.
    """

    steps: int
    totals: Tensor


class TrainingLoop:
    """Runs the epochs of a sweep. The loss is the sum over heads, so their gradients do not mix.

    A step is that of its whole batch, however many parts and processes it is split over: losses are summed over images
    and divided by their number in the batch, gradients are added up. Batch normalization sees the images of all
    processes; of a batch in several parts it sees each part by itself.

    Args:
        sweep: The heads and their backbone.
        arguments: Training settings.
        rates: Learning rate and weight decay of each head.
        accelerator: Where to run.
        train: Names of the heads that see the same images at a time, and the loader of their steps, for each seed.
        validation: Loader of the validation split.
        class_weights: `(C,)` weights of the loss; `None` weighs all images the same.
        scale: What targets of a regression are standardized by; `None` for other problems.

    Attributes:
        diverged: Name -> step (from 1) at which the loss of a head was no finite number.
        spreads: Name -> how evenly a head that attends spread its attention on the validation split, when last scored.
    """

    def __init__(
        self,
        sweep: ProbeSweep,
        arguments: ProbeTrainingArguments,
        rates: Mapping[str, HeadRates],
        accelerator: Accelerator,
        train: Sequence[tuple[Sequence[str], StepLoader]],
        validation: StepLoader,
        class_weights: Tensor | None = None,
        scale: TargetScale | None = None,
    ):
        self.scale = scale
        self.sweep, self.arguments, self.accelerator = sweep, arguments, accelerator
        self.train_loaders, self.validation_loader = train, validation
        self.spreads: dict[str, Spread] = {}
        self.device = accelerator.device
        self.class_weights = None if class_weights is None else class_weights.to(self.device)
        keep_freed_memory()
        sweep.seed_weights(arguments.seed)
        begin(sweep, scale)
        sweep.to(self.device)
        self._start_alike()
        if arguments.compile:
            sweep.backbone.compile_blocks()
        adapter = list(sweep.adapter_parameters.values())
        self.optimizer = build_optimizer(
            arguments.optimizer, sweep.heads, rates, arguments.momentum, adapter, adapter_rates(arguments)
        )
        # Frozen heads run in float32 under fp16: only an adapter's gradients pass through half precision.
        is_scaled = arguments.mixed_precision == "fp16" and bool(adapter)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=is_scaled)
        self.total_steps = self._count_steps()
        self.schedule = self._schedule(self.optimizer)
        self.steps_done = 0
        self.diverged: dict[str, int] = {}
        self.progress = self._no_progress()
        self.keep_only(sweep.active)
        self.bar = tqdm(
            total=self.total_steps * arguments.batch_size,
            unit="img",
            mininterval=1,
            disable=bar_is_off(accelerator.is_main_process),
        )

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or no head is left to take them."""
        return self.steps_done >= self.total_steps or not self.sweep.active

    def run_epoch(self, epoch: int, save: Callable[[], None]) -> dict[str, float]:
        """Train for one pass over the data, or what is left of the steps; name -> mean loss of each active head.

        `save` is called after every `save_steps` steps, when `progress` says how far the pass is.

        Raises:
            ValueError: If the data hold no image.
        """
        self.sweep.train()
        names, interval = [name for name in self.sweep.runs if name in self.sweep.active], self.arguments.save_steps
        places = torch.tensor([list(self.sweep.runs).index(name) for name in names], device=self.device)
        for step in self._steps(epoch):
            self._step(step)
            self.progress.steps += 1
            self.progress.totals.index_add_(0, places, self.gradients.losses)
            self.bar.update(self.arguments.batch_size)
            if self.finished:
                break
            if interval is not None and self.steps_done % interval == 0:
                save()
        if self.progress.steps == 0:
            raise ValueError("The training split holds no images.")
        means = (self.progress.totals / self.progress.steps).tolist()
        self.progress = self._no_progress()
        self.diverged |= self.gradients.diverged()
        return {name: mean for name, mean in zip(self.sweep.runs, means, strict=True) if name in names}

    def go_to(self, steps_done: int, progress: EpochProgress) -> None:
        """Count from here on, as after a resume: steps of the run, and how far its epoch is."""
        self.steps_done = steps_done
        self.progress = EpochProgress(progress.steps, progress.totals.to(self.device))
        self.bar.update(steps_done * self.arguments.batch_size)

    def evaluate(self, keep: Collection[str] = ()) -> dict[str, Scores]:
        """Scores of every head on the validation split; the draws of dropout and noise go on as if there were none.

        The predictions of the heads of `keep` are kept image by image; `spreads` says how heads spread their attention.
        """
        random_state = torch.get_rng_state()
        precision = self.arguments.mixed_precision
        sums = SpreadSums()
        scores = score_split(
            self.sweep, self.validation_loader, self.accelerator, precision=precision, keep=keep, spread=sums
        )
        torch.set_rng_state(random_state)
        if self.scale is not None:
            scores = {name: cast(TargetScores, found).rescaled(self.scale) for name, found in scores.items()}
        self.spreads = sums.spreads(self.accelerator)
        return scores

    def keep_only(self, names: set[str]) -> None:
        """Let the other heads rest."""
        self.sweep.active = set(names)
        adapter = list(self.sweep.adapter_parameters.values())
        for name, head in self.sweep.heads.items():
            head.requires_grad_(name in names)
            for parameter in head.parameters():
                parameter.grad = None
        kept = {name: [*head.parameters(), *adapter] for name, head in self.sweep.heads.items() if name in names}
        if kept:
            self.gradients = HeadGradients(kept)

    def close(self) -> None:
        """Wake all heads; release the progress bar and the gradients."""
        self.sweep.active = set(self.sweep.runs)
        for head in self.sweep.heads.values():
            head.requires_grad_(True)
        for parameter in self.sweep.parameters():
            parameter.grad = None
        self.bar.close()

    def _steps(self, epoch: int) -> Iterator[Step]:
        """The steps of an epoch that are still to come; their loaders leave the draws of dropout and noise alone."""
        loaders = []
        for names_of_seed, loader in self.train_loaders:
            if names := [name for name in names_of_seed if name in self.sweep.active]:
                loader.set_epoch(epoch)
                loader.start = self.progress.steps
                loaders.append((names, loader))
        steps = zip(*(loader for _, loader in loaders), strict=True)
        random_state = torch.get_rng_state()  # loaders draw a seed for their workers, also where no step is left
        first = next(steps, None)
        torch.set_rng_state(random_state)
        for parts in chain([] if first is None else [first], steps):
            yield [(names, loader.split, part) for (names, loader), part in zip(loaders, parts, strict=True)]

    def _step(self, step: Step) -> None:
        self.gradients.zero()
        for names, split, parts in step:
            batches = on_device(parts, self.device)
            total = total_weight([batch["labels"] for batch in batches], self.class_weights)
            for number, part in enumerate(batches):
                rank = (self.accelerator.process_index, self.accelerator.num_processes)
                self.sweep.seed_draws(self.arguments.seed, (self.steps_done, number, *rank))
                losses = self._losses(names, part, split) / total
                self.scaler.scale(losses.sum()).backward()
                self.gradients.add_losses(names, losses.detach())
        self.steps_done += 1
        self.gradients.add_up()
        self.scaler.unscale_(self.optimizer)
        self.gradients.settle(self.steps_done, self.arguments.max_grad_norm, self.scaler.is_enabled())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()

    def _losses(self, names: list[str], batch: Batch, split: Split) -> Tensor:
        """The losses `(H,)` of some heads, summed over the images of a part of a batch."""
        precision, problem_type = self.arguments.mixed_precision, self.sweep.config.problem_type
        with self.sweep.only(names):
            with autocast(self.device, precision):
                tokens = self.sweep.tokens_of(**inputs_of(batch))
            tokens, batch = only_finite(tokens, batch, split)
            labels = batch["labels"] if self.scale is None else self.scale.standardized(batch["labels"])
            with autocast(self.device, "no" if precision == "fp16" else precision):
                outputs = self.sweep.classify(self.sweep.sequences(tokens))
        return summed_losses([outputs[name].logits for name in names], labels, problem_type, self.class_weights)

    def _start_alike(self) -> None:
        """Every process begins with the tensors of the first."""
        learned = [*self.sweep.adapter_parameters.values()]
        learned += [tensor for head in self.sweep.heads.values() for tensor in head.state_dict().values()]
        with torch.no_grad():
            for mine, first in zip(learned, broadcast(learned), strict=True):
                mine.copy_(first)

    def _schedule(self, optimizer: Optimizer) -> LRScheduler:
        arguments = self.arguments
        return build_schedule(optimizer, self.total_steps, arguments.warmup_ratio, arguments.min_learning_rate)

    def _no_progress(self) -> EpochProgress:
        return EpochProgress(0, torch.zeros(len(self.sweep.runs), device=self.device))

    def _count_steps(self) -> int:
        is_stream = self.train_loaders[0][1].split.num_images is None
        return total_steps(self.arguments, 1 if is_stream else len(self.train_loaders[0][1]))
