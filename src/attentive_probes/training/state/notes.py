"""What is known of a run before and beside its training: circumstances, sizes, and the heads it will have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig

from attentive_probes.data.split import Split
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.diagnostics import doubts_of
from attentive_probes.evaluation.runs.families import head_named
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.hub.markdown import one_line
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import QueryPooling
from attentive_probes.probe.making.describe import layouts_of
from attentive_probes.probe.making.rates import is_automatic
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems import Scores
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.resampling import FEW_GROUPS
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.kept_epochs import selection_metric
from attentive_probes.training.steps.optimizers import HeadRates
from attentive_probes.training.steps.split_use import split_size

logger = logging.getLogger(__name__)
FEW_IMAGES = 200  # of a validation split, below which a choice by it is a game of chance


def head_rates(sweep: ProbeSweep, arguments: ProbeTrainingArguments) -> dict[str, HeadRates]:
    """Name -> learning rates and weight decay of each head: its own, else those of the arguments.

    Raises:
        ValueError: If the half-cosine of a head would go up, or an automatic rate is asked for with another optimizer
            than AdamW.
    """
    scale = arguments.batch_size / 256 if arguments.scale_learning_rate else 1.0
    rates: dict[str, HeadRates] = {}
    for name, run in sweep.runs.items():
        if is_automatic(arguments.learning_rate) and run.learning_rate is None and arguments.optimizer != "adamw":
            raise ValueError(
                f"learning_rate={arguments.learning_rate} was measured with adamw; state a rate for "
                f"{arguments.optimizer}."
            )
        rate, query_rate = (scale * value for value in run.rates(arguments.learning_rate))
        decay = arguments.weight_decay if run.weight_decay is None else run.weight_decay
        rates[name] = HeadRates(rate, decay, query_rate)
    for name, found in rates.items():
        if arguments.min_learning_rate > found.learning_rate:
            raise ValueError(
                f"min_learning_rate is {arguments.min_learning_rate}, above the learning rate of the head {name!r}, "
                f"{found.learning_rate:g}; the half-cosine goes down."
            )
    return rates


def adapter_rates(arguments: ProbeTrainingArguments) -> HeadRates:
    """Learning rate and weight decay of the adapter: its own, else those of the run."""
    scale = arguments.batch_size / 256 if arguments.scale_learning_rate else 1.0
    rate, decay = arguments.lora_learning_rate, arguments.lora_weight_decay
    return HeadRates(
        scale * float(arguments.learning_rate if rate is None else rate),
        arguments.weight_decay if decay is None else decay,
    )


def empty_results(sweep: ProbeSweep, arguments: ProbeTrainingArguments, num_processes: int) -> SweepResults:
    """The results of a run that has not begun.

    Raises:
        ValueError: If the problem has no such selection metric.
    """
    config, heads, rates = sweep.config, sweep.heads, head_rates(sweep, arguments)
    in_adapter = sum(p.numel() for p in sweep.adapter_parameters.values())
    results = SweepResults(
        heads=[
            HeadResult(
                name=name,
                head=run.head.to_dict(),
                learning_rate=rates[name].learning_rate,
                query_learning_rate=rates[name].query_learning_rate
                if heads[name].pooling.seeking_parameters()
                else None,
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
    note_queries(results, sweep)
    return results


def note_validation(results: SweepResults, scores: Scores) -> None:
    """Note what guessing reaches on the validation split, and warn if it is too small to select on.

    Args:
        results: The results of a run.
        scores: Of any head on that split.
    """
    num_images = scores.num_images
    if isinstance(scores, ClassScores):
        largest = 100 * float(scores.counts.max()) / num_images
        results.data.setdefault("validation", {})["largest_class"] = round(largest, 2)
    if num_images < FEW_IMAGES and results.arguments["select_epoch"]:
        warn(
            results,
            f"The validation split holds {num_images} images: what was selected on it, epochs and the best head, may "
            "be so by chance; selection.folds=5 compares on all images.",
        )


def note_diagnostics(results: SweepResults) -> None:
    """Note what the numbers of a run say against themselves, once its training is over, and again when it is tested."""
    warn(results, *doubts_of(results))


def warn(results: SweepResults, *texts: str) -> None:
    """Note what makes the numbers of a run less sure than they look, each once."""
    for text in texts:
        if text not in results.warnings:
            results.warnings.append(text)
            logger.warning(text)


def note_sizes(
    results: SweepResults, config: PreTrainedConfig, arguments: ProbeTrainingArguments, **splits: Split
) -> None:
    """Note how many images splits have, and warn of classes that one of them lacks."""
    for name, split in splits.items():
        results.data.setdefault(name, {}).update(split_size(split, arguments.num_workers))
        note_split(results, name, split, config)


def note_groups(results: SweepResults, counts: Mapping[str, int], advice: str) -> None:
    """Note how many groups judge, and warn of few: name of a split -> number of its groups."""
    for name, count in counts.items():
        results.data.setdefault(name, {})["groups"] = count
        if count < FEW_GROUPS:
            warn(results, f"The {name} split holds {count} groups: intervals are those of so few draws. {advice}")


def note_split(results: SweepResults, name: str, split: Split, config: PreTrainedConfig) -> None:
    """Warn of classes that a split that is held has no image of."""
    targets = split.targets()
    if targets is None or not config.problem.has_one_class:
        return
    counts = torch.bincount(targets, minlength=config.num_labels)
    missing = [config.id2label[label] for label in (counts == 0).nonzero().flatten().tolist()]
    if missing:
        few = ", ".join(map(one_line, missing[:5])) + (", ..." if len(missing) > 5 else "")
        warn(results, f"The {name} split has no image of {len(missing)} of {len(counts)} classes ({few}).")


def note_queries(results: SweepResults, sweep: ProbeSweep) -> None:
    """Warn of heads that have more queries than tokens to look at."""
    for name, head in sweep.heads.items():
        if head.pooling.folds:
            layouts = layouts_of(sweep.config, head.reading)
            length = head.reading.sequence_layout(layouts).num_tokens
            device = next((p.device for p in head.parameters()), torch.device("cpu"))
            blank = TokenStatistics(torch.zeros(1, length, head.reading.width(layouts), device=device))
            was_training, pooling = head.pooling.training, cast(QueryPooling, head.pooling)
            with torch.no_grad():
                count = len(pooling.eval().queries(blank).vectors)  # in evaluation, for no statistics may learn of it
            pooling.train(was_training)
            if count > length:
                warn(
                    results,
                    f"The head {name} reads {length} tokens with {count} queries; with so few tokens, a linear head on "
                    "them (pooling: concat) is often better.",
                )


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
