"""What is known of a run before and beside its training: circumstances, sizes, and the heads it will have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict

from accelerate import Accelerator

from attentive_probes.evaluation.families import head_named
from attentive_probes.evaluation.results import HeadResult, SweepResults
from attentive_probes.evaluation.statistics import proportion_interval
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.optimizers import HeadRates
from attentive_probes.training.selection import selection_metric

logger = logging.getLogger(__name__)
FEW_IMAGES = 200  # of a validation split, below which a choice by it is a game of chance


def head_rates(sweep: ProbeSweep, arguments: ProbeTrainingArguments) -> dict[str, HeadRates]:
    """Name -> learning rate and weight decay of each head: its own, else those of the arguments.

    Raises:
        ValueError: If the half-cosine of a head would go up.
    """
    scale = arguments.batch_size / 256 if arguments.scale_learning_rate else 1.0
    rates = {
        name: HeadRates(
            scale * (arguments.learning_rate if run.learning_rate is None else run.learning_rate),
            arguments.weight_decay if run.weight_decay is None else run.weight_decay,
        )
        for name, run in sweep.runs.items()
    }
    for name, rate in rates.items():
        if arguments.min_learning_rate > rate.learning_rate:
            raise ValueError(
                f"min_learning_rate is {arguments.min_learning_rate}, above the learning rate of the head {name!r}, "
                f"{rate.learning_rate:g}; the half-cosine goes down."
            )
    return rates


def adapter_rates(arguments: ProbeTrainingArguments) -> HeadRates:
    """Learning rate and weight decay of the adapter: its own, else those of the run."""
    scale = arguments.batch_size / 256 if arguments.scale_learning_rate else 1.0
    rate, decay = arguments.lora_learning_rate, arguments.lora_weight_decay
    return HeadRates(
        scale * (arguments.learning_rate if rate is None else rate), arguments.weight_decay if decay is None else decay
    )


def empty_results(sweep: ProbeSweep, arguments: ProbeTrainingArguments, num_processes: int) -> SweepResults:
    """The results of a run that has not begun.

    Raises:
        ValueError: If the problem has no such selection metric.
    """
    config, heads, rates = sweep.config, sweep.heads, head_rates(sweep, arguments)
    in_adapter = sum(p.numel() for p in sweep.adapter_parameters.values())
    return SweepResults(
        heads=[
            HeadResult(
                name=name,
                head=run.head.to_dict(),
                learning_rate=rates[name].learning_rate,
                weight_decay=rates[name].weight_decay,
                trainable_parameters=in_adapter + sum(p.numel() for p in heads[name].parameters()),
                seed=arguments.seed if run.seed is None else run.seed,
                family=run.family or name,
            )
            for name, run in sweep.runs.items()
        ],
        selection_metric=selection_metric(arguments.selection_metric, config.problem_type),
        backbone={
            "name": config.backbone_name_or_path or config.backbone_class or "random weights",
            "revision": config.backbone_revision,
            "dtype": str(sweep.backbone.dtype).removeprefix("torch."),
        },
        arguments=asdict(arguments),
        data={},
        num_processes=num_processes,
        adaptation="lora" if config.lora else "frozen",
    )


def note_validation(results: SweepResults, num_images: int) -> None:
    """Note how sure the validation accuracies are, and warn of a validation split that is too small to select on.

    Args:
        results: The results of a run, whose heads have their values at their best epoch.
        num_images: Images of the validation split.
    """
    for head in results.heads:
        if "top1" in head.validation:
            head.validation_interval = [
                100 * end for end in proportion_interval(round(head.validation["top1"] / 100 * num_images), num_images)
            ]
    warning = (
        f"The validation split holds {num_images} images: what was selected on it, epochs and the best head, may be so "
        "by chance."
    )
    if num_images < FEW_IMAGES and warning not in results.warnings:
        results.warnings.append(warning)
        logger.warning(warning)


def check_baseline(baseline: str | None, results: SweepResults) -> str:
    """The head that the others are compared with: the one that is named, the best of a family, or the selected one.

    Also where the named one diverged, for a comparison with it would say nothing; the log says so.

    Raises:
        ValueError: If there is no head of that name.
    """
    if baseline is not None:
        baseline = head_named(baseline, results.heads, results.selection_metric, "head, as baseline:")
    if baseline is not None and not results.head(baseline).best_epoch:
        logger.warning("The baseline %s diverged; heads are compared with %s.", baseline, results.best.name)
        baseline = None
    return baseline or results.best.name


def tell_trackers(
    accelerator: Accelerator, epoch: int, losses: Mapping[str, float], validation: Mapping[str, Mapping[str, float]]
) -> None:
    """Tell the trackers of a run about an epoch: training losses and validation metrics by head."""
    values = {f"{name}/train_loss": loss for name, loss in losses.items()}
    values |= {f"{name}/{key}": value for name, metrics in validation.items() for key, value in metrics.items()}
    accelerator.log(values, step=epoch)
