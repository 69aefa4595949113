"""How heads are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attentive_probes.checks import (
    BELOW_ONE,
    COUNT,
    NOT_NEGATIVE,
    OPTIONAL_COUNT,
    OPTIONAL_NOT_NEGATIVE,
    SEED,
    SHARE,
    Range,
    check_ranges,
    unknown_name,
)
from attentive_probes.machine.processes import PRECISIONS
from attentive_probes.probe.making.rates import AUTO, rate_of
from attentive_probes.training.steps.optimizers import OPTIMIZERS

COUNT_OR_AUTO = Range(0, 10**9, whole=True)
CLASS_WEIGHTS = ("none", "balanced")
RANGES = {
    "num_train_epochs": COUNT_OR_AUTO,
    "min_steps": Range(0, whole=True),
    "max_steps": Range(-1, whole=True),
    "batch_size": COUNT_OR_AUTO,
    "eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "lora_learning_rate": OPTIONAL_NOT_NEGATIVE,
    "lora_weight_decay": OPTIONAL_NOT_NEGATIVE,
    "min_learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "momentum": BELOW_ONE,
    "warmup_ratio": SHARE,
    "max_grad_norm": Range(0, above=True, optional=True),
    "num_workers": Range(0, 1024, whole=True),
    "halving_epochs": OPTIONAL_COUNT,
    "seed": SEED,
    "save_steps": OPTIONAL_COUNT,
    "save_seconds": NOT_NEGATIVE,
}


@dataclass
class ProbeTrainingArguments:
    """Settings of a training run. `batch_size` counts over all processes, whose number changes no result.

    Any number of images, batch size, parts and processes goes together: a step is that of its whole batch. The draws of
    dropout and token noise alone differ with the number of processes.

    Args:
        output_dir: Folder of the run; it must not hold another one.
        num_train_epochs: Passes over the training split; 0 takes as many as make 500 steps, between 10 and 100.
        min_steps: Least number of optimizer steps: more epochs are added until they hold that many (ALF: 1000).
        max_steps: Optimizer steps after which to stop, `-1` for none; required for streams, whose length is unknown.
        batch_size: Images per optimizer step, over all processes and accumulation steps; 0 takes 256, and less of a
            training split of fewer than 4,096 images: a sixteenth of it, but 16 at least.
        fit_batch_size: Whether to change `batch_size` to one that fills an epoch evenly (`rules.fitting_batch_size`).
        drop_last: Whether to leave out the last, incomplete batch of an epoch.
        eval_batch_size: Images per evaluation batch, over all processes.
        gradient_accumulation_steps: Parts in which a batch passes through the model, to save memory. The gradient is
            that of the whole batch, with one exception: batch normalization takes its statistics from each part.
        optimizer: `adamw`, `sgd` or `lars`.
        learning_rate: Peak learning rate of heads that name none; linear warm-up from zero, then a half-cosine down to
            `min_learning_rate`. `auto` is the rate that was measured for the pooling of each head, with AdamW.
        scale_learning_rate: Whether learning rates are per 256 images, as published recipes state them: each is
            multiplied by `batch_size / 256`.
        lora_learning_rate: Peak learning rate of the adapter; `None` takes `learning_rate`, or 0.002 for `auto`.
        lora_weight_decay: Weight decay of the adapter; `None` takes `weight_decay`.
        min_learning_rate: Where the half-cosine ends.
        weight_decay: Weight decay of heads that name none.
        momentum: Momentum of `sgd` and `lars`.
        warmup_ratio: Share of the steps that warm up.
        class_weights: `balanced` weighs the loss of each class by `n / (C n_c)`; `none` does not.
        max_grad_norm: Largest gradient norm, for each head by itself; `None` does not clip.
        mixed_precision: `no`, `bf16` or `fp16`, of the backbone in all passes and of the heads in training; under
            `fp16`, whose range is small, and when they are scored, heads run in float32.
        num_workers: Worker processes that decode images, per process.
        selection_metric: What chooses epoch and head on the validation split: `loss` or a metric of the problem, such
            as `balanced_accuracy`. `None` is `top1` for single labels and `loss` otherwise.
        select_epoch: Whether heads are kept at their best epoch on the validation split, or at the last one.
        halving_epochs: Successive halving: after every so many epochs only the better half of the heads, by their best
            validation value, trains on; `None` trains all to the end.
        seed: Seed of the order of images, of the augmentation, of dropout and noise; heads may have their own.
        report_to: Tracker by its name in Accelerate (`tensorboard`, `trackio`, `wandb`, ...); `None` for none.
        compile: Whether to compile the backbone. It pays on GPUs and long online runs; on short or cached runs the
            compilation takes longer than it saves.
        save_steps: Optimizer steps after which a run can be resumed within an epoch, for long epochs and streams, of
            which the part that was seen is read again without training. `None` saves at the end of epochs alone.
        save_seconds: Seconds that at least lie between two saves at the end of epochs, of results and of what a resumed
            run goes on from, so that many short epochs are not slowed down; the first and the last are always saved.
        resume: Whether to go on with the unfinished run in `output_dir`, where it was saved last.
        overwrite: Whether to replace a run that `output_dir` already holds.

    Raises:
        ValueError: If a value is unknown or out of range.
    """

    output_dir: str
    num_train_epochs: int = 0
    min_steps: int = 0
    max_steps: int = -1
    batch_size: int = 0
    fit_batch_size: bool = False
    drop_last: bool = True
    eval_batch_size: int = 256
    gradient_accumulation_steps: int = 1
    optimizer: str = "adamw"
    learning_rate: float | str = AUTO
    scale_learning_rate: bool = False
    lora_learning_rate: float | None = None
    lora_weight_decay: float | None = None
    min_learning_rate: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    warmup_ratio: float = 0.1
    class_weights: str = "none"
    max_grad_norm: float | None = None
    mixed_precision: str = "no"
    num_workers: int = 0
    selection_metric: str | None = None
    select_epoch: bool = True
    halving_epochs: int | None = None
    seed: int = 0
    report_to: str | None = None
    compile: bool = False
    save_steps: int | None = None
    save_seconds: float = 30.0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        choices: dict[str, Iterable[str]] = {
            "optimizer": OPTIMIZERS,
            "mixed_precision": PRECISIONS,
            "class_weights": CLASS_WEIGHTS,
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(unknown_name(name, getattr(self, name), valid))
        check_ranges(self, RANGES)
        if not self.output_dir.strip() or not self.output_dir.isprintable():
            raise ValueError(f"output_dir is {self.output_dir!r}; name a folder.")
        rate_of(self.learning_rate, "mean")  # each pooling has its own, but any shows whether the text is right
        if isinstance(self.learning_rate, float | int) and self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate}, above learning_rate, {self.learning_rate}; the half-"
                "cosine goes down."
            )
