"""What is known of one head, or of one classifier on fixed features, in the results of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from attentive_probes.evaluation.runs.attention_spread import Spread
from attentive_probes.evaluation.runs.score import Score, score_in

# Among the validation metrics of a head that attends.
ENTROPY = "attention_entropy"


@dataclass
class HeadResult:
    """One head of a run.

    Args:
        name: Its name.
        head: Its `HeadConfig` as a mapping.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        trainable_parameters: Number of parameters that were trained.
        seed: Seed of its initial weights, and of order and views of its images.
        family: Name of what it is one way of, in a grid; empty for its own name.
        best_epoch: Epoch (from 1) with the best validation value of the selection metric; 0 if there is none.
        seconds: Time of the run up to the end of that epoch; heads of one run share their backbone pass.
        validation: Metrics at that epoch.
        validation_interval: 95% Wilson interval of the top-1 accuracy there, in percent.
        temperature: What its logits are divided by for calibrated probabilities, fitted on the validation split; of the
            selected head alone.
        diverged: Optimizer step (from 1) at which its loss was no finite number any more, 0 if its scores on the
            validation split were the first not to be finite; `None` for most heads. It trained no further; earlier
            epochs count.
        history: Per epoch: training loss and validation metrics. A run keeps them in `history.jsonl`, a line per epoch.
        test: Metrics on the test split, with `<metric>_interval`, `<metric>_difference` (mean, low, high) to the
            baseline, its p-value `<metric>_p`, and `<metric>_p_holm`, corrected for the number of comparisons.
        tests: Name of a further test split -> metrics there.
        query_learning_rate: Peak learning rate of its queries, or of what says where to look in their place; `None`
            where there is no such part, or in results of before, where it was the learning rate.
        attention_bound: Entropy of uniform attention over the tokens that it reads, in nats: what `attention_entropy`
            of its validation metrics, the mean over queries and images, can be at most; `None` without attention.
    """

    name: str
    head: dict[str, Any]
    learning_rate: float
    weight_decay: float
    trainable_parameters: int
    seed: int = 0
    family: str = ""
    best_epoch: int = 0
    seconds: float = 0.0
    validation: dict[str, Any] = field(default_factory=dict)
    validation_interval: list[float] | None = None
    temperature: float | None = None
    diverged: int | None = None
    history: list[dict[str, float | None]] = field(default_factory=list)
    test: dict[str, Any] | None = None
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    query_learning_rate: float | None = None
    attention_bound: float | None = None

    @property
    def attention(self) -> Spread | None:
        """How evenly it spread its attention on the validation split; `None` without attention."""
        entropy = self.validation.get(ENTROPY)
        return None if entropy is None or self.attention_bound is None else Spread(entropy, self.attention_bound)

    def score(self, split: str, metric: str | None) -> Score | None:
        """A metric on `validation` or `test`; `None` where it has no finite value."""
        if split == "test":
            return score_in(self.test, metric)
        score = score_in(self.validation, metric)
        if score is None or metric != "top1" or self.validation_interval is None:
            return score
        low, high = self.validation_interval
        return score._replace(interval=(low, high))

    @property
    def has_fast_queries(self) -> bool:
        """Whether its queries have another rate than the rest of it."""
        return self.query_learning_rate not in (None, self.learning_rate)


@dataclass
class ReferenceResult:
    """A classifier on fixed features beside the heads.

    Args:
        name: Its name.
        reference: Method and what was tried, as a mapping.
        settings: What was chosen on the validation split.
        validation: Accuracy there, in percent, of what learned from the training split alone.
        test: As in `HeadResult`.
        temperature: As in `HeadResult`, of a logistic regression that was selected.
    """

    name: str
    reference: dict[str, Any]
    settings: dict[str, float]
    validation: float
    test: dict[str, Any] | None = None
    temperature: float | None = None

    def score(self, split: str, metric: str | None) -> Score | None:
        """As in `HeadResult`; its validation score is the accuracy of the chosen settings."""
        return score_in(self.test if split == "test" else {"top1": self.validation}, metric)


class RunResults(Protocol):
    """What tables need to know of the results of a run; `SweepResults` is one."""

    heads: list[HeadResult]
    references: list[ReferenceResult]
    selection_metric: str
    selection: dict[str, Any]
    arguments: dict[str, Any]
    warnings: list[str]
    adaptation: str
    seconds: float
    baseline: str | None

    @property
    def test_metric(self) -> str | None:
        """The metric that stands for the test split; `None` where it was not scored."""

    @property
    def winner(self) -> str:
        """Name of the head or reference that was selected."""

    @property
    def best_per_head(self) -> Sequence[Any]:
        """The best setting of each head family."""

    def head(self, name: str) -> HeadResult:
        """The entry of one head."""
