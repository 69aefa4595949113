"""k-NN and logistic regression beside the heads of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.logistic import LinearModel
from attentive_probes.evaluation.references import (
    Features,
    Reference,
    evaluate_reference,
    linear_probe,
    read_features,
)
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult, ReferenceResult
from attentive_probes.evaluation.runs.run_files import HEAD_PREDICTIONS, probe_folder
from attentive_probes.evaluation.split_scores import rows_of
from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.hub.model_card import card_files
from attentive_probes.probe.making.describe import reading_of
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.class_sums import score_classes
from attentive_probes.scores.temperature import fit_temperature
from attentive_probes.training.state.checkpoint import save_whole
from attentive_probes.training.steps.score_test import save_head_predictions
from attentive_probes.training.trainer import ProbeTrainer


def add_references(
    references: Mapping[str, Reference],
    trainer: ProbeTrainer,
    splits: Mapping[str, Any],
    details: DetailOptions | None = None,
) -> None:
    """Evaluate k-NN and logistic regression on the features of a run's splits and add them to its results.

    Logistic regression leaves a probe in `probes/<name>`, as the heads do.

    Raises:
        ValueError: If a setting is out of range.
    """
    config = trainer.sweep.config
    readings = {name: reading_of(config, reference.head) for name, reference in references.items()}
    features = {}
    for name, split in splits.items():
        if split is not None and name != "pool":
            loader = trainer.run.loader(split, train=False)
            features[name] = read_features(trainer.sweep, loader, list(readings.values()), trainer.accelerator)
    everything = None
    if trainer.results.selection.get("refit"):  # as the heads, they learn from both in the end
        both = zip(*(features[name].values() for name in ("train", "validation")), strict=True)
        joined = (Features(*(torch.cat(pair) for pair in zip(*parts, strict=True))) for parts in both)
        everything = dict(zip(features["train"], joined, strict=True))
    tested: dict[str, ClassScores] = {}
    for name, reference in references.items():
        mine = {split: by_reading[readings[name]] for split, by_reading in features.items()}
        more = None if everything is None else everything[readings[name]]
        identities = _identities(splits.get("test"), mine.get("test"))
        result, model, scores = _result_of(name, reference, mine, more, trainer, identities)
        if scores is not None and isinstance(trainer.run.baseline_scores, ClassScores):
            rows = None if scores.records is None else rows_of(scores, splits["test"])
            groups = None if details is None or rows is None else details.groups_of(rows)
            tested[name] = scores
            result.test = scores.test_metrics(trainer.run.baseline_scores, groups)
        trainer.results.references.append(result)
        if model is not None and trainer.accelerator.is_main_process:
            probe = linear_probe(trainer.sweep, reference.head, model)
            probe.config.temperature = result.temperature
            parameters = sum(p.numel() for p in probe.head.parameters())
            among_heads = with_reference(trainer.results, result, parameters)
            probe.files = card_files(among_heads, name, probe.config, trainer.attached(name))
            save_whole(probe, probe_folder(trainer.folder, name))
    trainer.results.correct_for_number()
    if tested and details is not None and details.predictions and trainer.accelerator.is_main_process:
        save_head_predictions(tested, splits["test"], trainer.folder / HEAD_PREDICTIONS, details, more=True)
    trainer.save_results()


def _result_of(
    name: str,
    reference: Reference,
    splits: Mapping[str, Features],
    more: Features | None,
    trainer: ProbeTrainer,
    identities: Tensor | None,
) -> tuple[ReferenceResult, LinearModel | None, ClassScores | None]:
    """A reference with its best setting, its model, and its scores on the test split if there is one.

    Accuracy and temperature on validation are those of what learned from training images alone, also where it learns
    from `more` in the end.
    """
    num_labels, test = trainer.sweep.config.num_labels, splits.get("test")
    found = evaluate_reference(reference, splits["train"], splits["validation"], test, num_labels)
    temperature = None
    if found.model is not None and name == trainer.results.selection.get("winner"):
        temperature = fit_temperature(found.validation_scores.cpu().numpy(), splits["validation"].labels.cpu().numpy())
    model, scores = found.model, found.test_scores
    if more is not None:
        again = evaluate_reference(reference.with_setting(found.settings), more, splits["validation"], test, num_labels)
        model, scores = again.model, again.test_scores
    result = ReferenceResult(name, asdict(reference), found.settings, found.validation, temperature=temperature)
    if test is None or scores is None:
        return result, model, None
    return result, model, score_classes(scores, test.labels, True, temperature, identities)


def _identities(split: Any, features: Features | None) -> Tensor | None:
    """The identities `(N,)` of the scored images of the test split, in order, where it is known which were scored."""
    if split is None or features is None:
        return None
    found = split.images if isinstance(split, TokenCache) else torch.arange(split.num_images or 0)
    return found if len(found) == len(features.labels) else None


def with_reference(results: SweepResults, reference: ReferenceResult, parameters: int) -> SweepResults:
    """Results in which a linear reference of so many parameters stands among the heads, for its card."""
    head = Reference(**reference.reference).head
    entry = HeadResult(
        reference.name,
        head.to_dict(),
        learning_rate=0.0,
        weight_decay=0.0,
        trainable_parameters=parameters,
        validation={"top1": reference.validation},
        test=reference.test,
        temperature=reference.temperature,
    )
    return replace(results, heads=[*results.heads, entry])
