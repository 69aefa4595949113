"""Forward, backward, clip, step: one epoch of all heads at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from attentive_probes.data.batches import Collator, inputs_of
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.split_scores import Scores, score_split
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.optimizers import HeadRates, build_optimizer, build_schedule
from attentive_probes.training.outcome import begin
from attentive_probes.training.report import adapter_rates
from attentive_probes.training.rules import epochs_for
from attentive_probes.training.targets import TargetScale

logger = logging.getLogger(__name__)


@dataclass
class EpochProgress:
    """How far an epoch is.

    Args:
        batches: Number of batches done.
        totals: Name -> sum of the losses of that head over these.
    """

    batches: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Count one more batch."""
        self.batches += 1
        self.totals = {name: loss.detach() + self.totals.get(name, 0.0) for name, loss in losses.items()}


class TrainingLoop:
    """Runs the epochs of a sweep. The loss is the sum over heads, so their gradients do not mix.

    Args:
        sweep: The heads and their backbone.
        arguments: Training settings.
        rates: Learning rate and weight decay of each head.
        accelerator: Where to run.
        train: Loader of training batches, and what is told the epoch, so that views change.
        validation: Loader of validation batches.
        class_weights: `(C,)` weights of the loss; `None` weighs all images the same.
        scale: What targets of a regression are standardized by; `None` for other problems.
    """

    def __init__(
        self,
        sweep: ProbeSweep,
        arguments: ProbeTrainingArguments,
        rates: Mapping[str, HeadRates],
        accelerator: Accelerator,
        train: tuple[DataLoader, Collator | TokenCache],
        validation: DataLoader,
        class_weights: Tensor | None = None,
        scale: TargetScale | None = None,
    ):
        self.scale = scale
        self.sweep, self.arguments, self.accelerator = sweep, arguments, accelerator
        self.views = train[1]
        self.class_weights = None if class_weights is None else class_weights.to(accelerator.device)
        begin(sweep, scale)
        if arguments.compile:
            sweep.backbone.compile_blocks()
        adapter = list(sweep.adapter_parameters.values())
        optimizer = build_optimizer(
            arguments.optimizer, sweep.heads, rates, arguments.momentum, adapter, adapter_rates(arguments)
        )
        self.model, self.optimizer, self.train_loader, self.validation_loader = accelerator.prepare(
            sweep, optimizer, train[0], validation
        )
        self.total_steps = self._count_steps()
        self.schedule = accelerator.prepare(self._schedule(optimizer))
        self.steps_done = 0
        self.progress = EpochProgress()
        self.bar = tqdm(
            total=self.total_steps * arguments.batch_size,
            unit="img",
            mininterval=1,
            disable=not accelerator.is_main_process,
        )

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.steps_done >= self.total_steps

    def run_epoch(self, epoch: int, save: Callable[[], None]) -> dict[str, float]:
        """Train for one pass over the data, or what is left of the steps; name -> mean loss of that head.

        `save` is called after every `save_steps` steps, when `progress` says how far the pass is.

        Raises:
            ValueError: If the data hold no batch.
        """
        self.views.epoch = epoch
        self.train_loader.set_epoch(epoch)
        self.model.train()
        progress, interval = self.progress, self.arguments.save_steps
        for batch in self._batches(epoch):
            losses = self._step(batch)
            progress.add(losses)
            self.bar.update(len(batch["labels"]) * self.accelerator.num_processes)
            if self.finished:
                break
            if interval is not None and self.accelerator.sync_gradients and self.steps_done % interval == 0:
                save()
        if progress.batches == 0:
            raise ValueError(f"The training split holds less than one batch of {self.arguments.batch_size} images.")
        means = {name: total / progress.batches for name, total in progress.totals.items()}
        self.progress = EpochProgress()
        return {name: mean.item() for name, mean in self.accelerator.reduce(means, "mean").items()}

    def go_to(self, steps_done: int, batches: int, totals: Mapping[str, Tensor]) -> None:
        """Count from here on, as after a resume: steps of the run, batches of the epoch and their summed losses."""
        device = self.accelerator.device
        self.steps_done = steps_done
        self.progress = EpochProgress(batches, {name: total.to(device) for name, total in totals.items()})
        self.bar.update(steps_done * self.arguments.batch_size)

    def evaluate(self) -> dict[str, Scores]:
        """Scores of every head on the validation split; the draws of dropout and noise go on as if there were none."""
        random_state = torch.get_rng_state()
        scores = score_split(self.model, self.validation_loader, self.accelerator, lambda count: None)
        torch.set_rng_state(random_state)
        if self.scale is None:
            return scores
        return {name: Scores(self.scale.restored(found.logits), found.labels) for name, found in scores.items()}

    def report(
        self,
        epoch: int,
        losses: Mapping[str, float],
        validation: Mapping[str, Mapping[str, float]],
        results: SweepResults,
    ) -> None:
        """Name the currently best head beside the progress bar, and tell the trackers about an epoch."""
        best, metric = results.best, results.selection_metric
        self.bar.set_postfix_str(f"best {best.name}: {metric} {best.validation[metric]:.2f}")
        values = {f"{name}/train_loss": loss for name, loss in losses.items()}
        values |= {f"{name}/{key}": value for name, metrics in validation.items() for key, value in metrics.items()}
        self.accelerator.log(values, step=epoch)

    def keep_only(self, names: set[str]) -> None:
        """Let the other heads rest; several processes then exchange gradients of the active ones alone."""
        if dropped := sorted(self.sweep.active - names):
            logger.info("Successive halving: %d heads train on; dropped %s.", len(names), ", ".join(dropped))
        self.sweep.active = names
        for name, head in self.sweep.heads.items():
            head.requires_grad_(name in names)
        if self.model is not self.sweep:
            self.model = self.accelerator.prepare_model(self.sweep)

    def close(self) -> None:
        """Wake all heads; release the progress bar and the wrappers around the model."""
        self.sweep.active = set(self.sweep.runs)
        for head in self.sweep.heads.values():
            head.requires_grad_(True)
        self.bar.close()
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()

    def _batches(self, epoch: int) -> Iterator[Mapping[str, Tensor]]:
        """The batches of an epoch that are still to come; their loader leaves the draws of dropout and noise alone."""
        loader = self.train_loader
        if self.progress.batches:
            loader = self.accelerator.skip_first_batches(loader, self.progress.batches)
            loader.set_epoch(epoch)
        random_state: Tensor | None = torch.get_rng_state()  # loaders draw a seed for their workers
        for batch in loader:
            if random_state is not None:
                torch.set_rng_state(random_state)
                random_state = None
            yield batch

    def _step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with self.accelerator.accumulate(self.model):
            outputs = self.model(**inputs_of(batch))
            losses = {name: self._loss(output.logits, batch["labels"]) for name, output in outputs.items()}
            self.accelerator.backward(torch.stack(list(losses.values())).sum())
            if self.accelerator.sync_gradients:
                self._clip()
                self.steps_done += 1
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        return losses

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is not None:
            return F.cross_entropy(logits, labels, self.class_weights)
        labels = labels if self.scale is None else self.scale.standardized(labels)
        return ForSequenceClassificationLoss(labels, logits, self.sweep.config)

    def _schedule(self, optimizer: Optimizer) -> LRScheduler:
        arguments = self.arguments
        return build_schedule(optimizer, self.total_steps, arguments.warmup_ratio, arguments.min_learning_rate)

    def _clip(self) -> None:
        if self.arguments.max_grad_norm is None:
            return
        self.accelerator.unscale_gradients()
        adapter = self.sweep.adapter_parameters.values()
        for head in self.sweep.heads.values():
            clip_grad_norm_([*head.parameters(), *adapter], self.arguments.max_grad_norm)

    def _count_steps(self) -> int:
        if self.arguments.max_steps > 0:
            return self.arguments.max_steps
        per_epoch = math.ceil(len(self.train_loader) / self.arguments.gradient_accumulation_steps)
        return per_epoch * epochs_for(self.arguments.num_train_epochs, per_epoch, self.arguments.min_steps)
