"""Training-free and converged references on fixed features: k-NN and logistic regression, beside the heads of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from attentive_probes.checks import COUNT, POSITIVE, unknown_name
from attentive_probes.data.finite import only_finite
from attentive_probes.data.steps import StepLoader
from attentive_probes.evaluation.knn import knn_scores
from attentive_probes.evaluation.logistic import LinearModel, fit_logistic
from attentive_probes.machine.processes import gather_rows, on_device
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.making.describe import set_head
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.scores.metrics import top1
from attentive_probes.tokens import Reading

logger = logging.getLogger(__name__)
METHODS = ("knn", "logistic")


@dataclass
class Reference:
    """A classifier on fixed features; its settings are chosen on the validation split.

    Args:
        method: `knn` or `logistic`.
        tokens: The reading whose tokens, side by side, are the features: `cls`, `mean`, or several.
        k: Numbers of neighbours to try (`knn`); those above the number of training images are left out.
        temperature: Temperatures to try (`knn`).
        inverse_l2: Inverse strengths of the regularization to try (`logistic`); scikit-learn's `C`.
        standardize: Whether features are centred and scaled by the training split (`logistic`).

    Raises:
        ValueError: If the method is unknown, a number is out of range, or `patches` are read, of which there are too
            many for features.
    """

    method: str = "knn"
    tokens: tuple[str, ...] = ("cls",)
    k: list[int] = field(default_factory=lambda: [5, 10, 15, 20, 50, 100, 200])
    temperature: list[float] = field(default_factory=lambda: [0.07])
    inverse_l2: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0, 10.0])
    standardize: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(unknown_name("reference method", self.method, METHODS))
        for name, allowed in (("k", COUNT), ("temperature", POSITIVE), ("inverse_l2", POSITIVE)):
            values = getattr(self, name)
            if not values or not all(value in allowed for value in values):
                raise ValueError(f"{name} is {list(values)}; each value must be {allowed}.")
        if any(item.kind == "patches" for item in self.head.reading.items):
            raise ValueError(f"A reference on {list(self.tokens)} would have huge features; read 'mean' instead.")

    @property
    def all_settings(self) -> list[dict[str, float]]:
        """Every setting that is tried."""
        if self.method == "logistic":
            return [{"inverse_l2": value} for value in self.inverse_l2]
        return [{"k": k, "temperature": temperature} for k in self.k for temperature in self.temperature]

    def with_setting(self, settings: Mapping[str, float]) -> Reference:
        """This reference with one setting alone."""
        values: dict[str, Any] = {key: [value] for key, value in settings.items()}
        return replace(self, **values)

    @property
    def head(self) -> HeadConfig:
        """The head that a linear model on these features is."""
        return HeadConfig("concat", tokens=tuple(self.tokens), feature_norm="none")


class Features(NamedTuple):
    """Features `(N, F)` of a split and its class ids `(N,)`."""

    values: Tensor
    labels: Tensor


class ReferenceScores(NamedTuple):
    """Settings chosen on validation, accuracy in percent and scores `(N, C)` there, those on test, a linear model."""

    settings: dict[str, float]
    validation: float
    validation_scores: Tensor
    test_scores: Tensor | None
    model: LinearModel | None


@torch.no_grad()
def read_features(
    sweep: ProbeSweep, loader: StepLoader, readings: Sequence[Reading], accelerator: Accelerator
) -> dict[Reading, Features]:
    """Features of every image of a split for each reading, in one pass, gathered from all processes.

    Batches hold images or cached tokens.
    """
    values: dict[Reading, list[Tensor]] = {reading: [] for reading in readings}
    labels = []
    for parts in loader:
        for batch in on_device(parts, accelerator.device):
            tokens = batch.get("tokens")
            if tokens is None:
                tokens = sweep.read(batch["pixel_values"], readings)
                tokens, batch = only_finite(tokens, batch, loader.split)
            features = {str(i): reading(tokens).flatten(1).float() for i, reading in enumerate(values)}
            everyone = gather_rows({**features, "labels": batch["labels"]}, accelerator)
            for i, found in enumerate(values.values()):
                found.append(everyone[str(i)])
            labels.append(everyone["labels"])
    return {reading: Features(torch.cat(parts), torch.cat(labels)) for reading, parts in values.items()}


def evaluate_reference(
    reference: Reference, train: Features, validation: Features, test: Features | None, num_labels: int
) -> ReferenceScores:
    """Try all settings of a reference on the validation split, and apply the best one to the test split.

    Raises:
        ValueError: If a setting is out of range.
    """
    targets = [validation] if test is None else [validation, test]
    best: ReferenceCandidate | None = None
    accuracy = -1.0
    for candidate in candidates_of(reference, train, targets, num_labels):
        value = top1(candidate.scores[0], validation.labels)
        if value > accuracy:
            accuracy, best = value, candidate
    assert best is not None
    return ReferenceScores(
        best.settings, accuracy, best.scores[0], None if test is None else best.scores[1], best.model
    )


class ReferenceCandidate(NamedTuple):
    """One setting of a reference, scores `(N, C)` of each target split, and a linear model if it is one."""

    settings: dict[str, float]
    scores: list[Tensor]
    model: LinearModel | None = None


def candidates_of(
    reference: Reference, train: Features, targets: list[Features], num_labels: int
) -> Iterator[ReferenceCandidate]:
    """A reference with each of its settings, trained on one split and applied to others."""
    if reference.method == "knn":
        ks = [k for k in reference.k if k <= len(train.labels)] or [len(train.labels)]
        if len(ks) < len(reference.k):
            logger.warning("k-NN on %d training images tries k = %s alone.", len(train.labels), ks)
        votes = [
            knn_scores(train.values, train.labels, t.values, num_labels, ks, reference.temperature) for t in targets
        ]
        for k, temperature in votes[0]:
            yield ReferenceCandidate({"k": k, "temperature": temperature}, [vote[k, temperature] for vote in votes])
        return
    mean, scale = train.values.mean(0), train.values.std(0).clamp(min=1e-6)
    if not reference.standardize:
        mean, scale = torch.zeros_like(mean), torch.ones_like(scale)
    model = None
    for inverse_l2 in sorted(reference.inverse_l2):
        model = fit_logistic((train.values - mean) / scale, train.labels, num_labels, inverse_l2, start=model)
        scores = [model((target.values - mean) / scale) for target in targets]
        yield ReferenceCandidate({"inverse_l2": inverse_l2}, scores, model.of_unscaled(mean, scale))


def linear_probe(sweep: ProbeSweep, head: HeadConfig, model: LinearModel) -> ProbeForImageClassification:
    """A probe on the backbone of a sweep that is one known linear layer over tokens side by side.

    Args:
        sweep: Its backbone and image processor are shared.
        head: A head of pooling `concat`, over T tokens of width D.
        model: Over the tokens side by side, F = T D.
    """
    config = deepcopy(sweep.config)
    set_head(config, head)
    probe = ProbeForImageClassification(config, sweep.backbone)
    probe.image_processor = sweep.image_processor
    with torch.no_grad():
        probe.head.classifier.weight.copy_(model.weight)
        probe.head.classifier.bias.copy_(model.bias)
    return probe
