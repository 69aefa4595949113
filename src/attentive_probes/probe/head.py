"""A head: pooling, normalization, classifier."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentive_probes.layers.nested import NestedDropout
from attentive_probes.layers.normalization import are_alike, build_feature_norm, normalize_together
from attentive_probes.layers.precision import in_autocast
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import Part, Pooled, Pooling, build_pooling, pool_together
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.tokens import Reading, SequenceLayout, Tokens


class HeadOutput(NamedTuple):
    """Logits `(B, C)`, the attention `(B, M, T)` of the pooling, and its features `(B, F)`."""

    logits: Tensor
    attention: Tensor
    features: Tensor


class ProbeHead(nn.Module):
    """Everything that is trained on top of a frozen backbone.

    Args:
        config: What to build.
        width: Token width D.
        layout: Length and grid of the sequence that is read.
        num_labels: Number of classes C.
        reading: What is read; by default the configured reading, in which `all` must be spelled out.

    Attributes:
        is_trained: Whether its tensors are those of a training that ended, not fresh ones.
        drops: Whether it drops features in training.
        draw: Seed of what it draws at random in its next pass; `None` draws as PyTorch is seeded.
        shape: What heads have in common that can be classified in one product.

    Raises:
        ValueError: If the pooling is unknown, or an option does not fit.
    """

    reading: Reading
    pooling: Pooling
    draw: int | None

    def __init__(
        self, config: HeadConfig, width: int, layout: SequenceLayout, num_labels: int, reading: Reading | None = None
    ):
        super().__init__()
        self.reading = reading or config.reading
        self.token_norm = config.token_norm
        self.token_noise = config.token_noise
        self.token_noise_probability = config.token_noise_probability
        self.pooling = build_pooling(config.pooling, width, layout, config.options)
        self.norm = build_feature_norm(config.feature_norm, self.pooling.num_features)
        parts = self.pooling.parts()
        if parts and config.feature_norm == "layernorm":
            raise ValueError("Features that serve in parts cannot be normed over all of them; use batchnorm or none.")
        self.dropout = nested_dropout(config.dropout, parts) if parts else nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.pooling.num_features, num_labels)
        if config.classifier_init_std is not None:
            nn.init.normal_(self.classifier.weight, std=config.classifier_init_std)
            nn.init.zeros_(self.classifier.bias)
        self.is_trained, self.draw = False, None
        self.drops = config.dropout > 0 or len(parts) > 1
        self.shape = (self.pooling.num_features, num_labels, *are_alike(self.norm))

    def read(self, tokens: Mapping[str, Tokens]) -> Tensor:
        """The sequence `(B, T, D)` that this head reads, in its own precision unless autocast decides."""
        sequence = self.reading(tokens)
        if not in_autocast(sequence):
            sequence = sequence.to(next((p.dtype for p in self.parameters()), torch.float32))  # none if quantized
        return F.normalize(sequence, dim=-1) if self.token_norm == "l2" else sequence

    def forward(self, sequence: Tensor) -> HeadOutput:
        """Classify a sequence `(B, T, D)` as `read` gives it."""
        return self.classify(self.pooling(self.perturb(sequence)))

    @property
    def is_noisy(self) -> bool:
        """Whether this head, as it is now, draws at random on the way to its features."""
        drops = getattr(self.pooling, "attention_dropout", 0.0) > 0
        return self.training and (self.token_noise > 0 or drops)

    @contextmanager
    def drawing(self, stage: int) -> Iterator[None]:
        """A context in which this head draws at random by its own seed, and nobody else notices."""
        if self.draw is None:
            yield
            return
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(spread_seed(self.draw, stage))
            yield

    def perturb(self, sequence: Tensor) -> Tensor:
        """Add the training noise of ALF (arXiv 2601.09322) to a sequence `(B, T, D)`; nothing in evaluation."""
        if not self.training or not self.token_noise:
            return sequence
        is_hit = torch.rand(len(sequence), 1, 1, device=sequence.device) < self.token_noise_probability
        return sequence + self.token_noise * torch.randn_like(sequence) * is_hit

    def classify(self, pooled: Pooled) -> HeadOutput:
        """Classify what the pooling made."""
        return classify_together([self], [pooled])[0]


def nested_dropout(probability: float, parts: Mapping[Part, Tensor]) -> NestedDropout:
    """Dropout of a head whose features serve in parts as well."""
    levels = torch.tensor([part.level for part in parts], device="cpu")
    return NestedDropout(probability, torch.stack(list(parts.values())), levels)


def pool_heads(heads: Sequence[ProbeHead], sequence: Tensor) -> list[Pooled]:
    """Pool one sequence `(B, T, D)` by several heads: one call of `attend`, one set of token statistics.

    Heads that add noise see a sequence of their own.
    """
    quiet = [head for head in heads if not head.is_noisy]
    pooled = iter(pool_together([head.pooling for head in quiet], TokenStatistics(sequence)) if quiet else ())
    return [_pooled_alone(head, sequence) if head.is_noisy else next(pooled) for head in heads]


def _pooled_alone(head: ProbeHead, sequence: Tensor) -> Pooled:
    with head.drawing(0):
        return head.pooling(head.perturb(sequence))


def spread_seed(*numbers: int) -> int:
    """One seed of several numbers, such that others are far away."""
    found = 0
    for number in numbers:
        found = ((found + number + 1) * 0x9E3779B97F4A7C15 ^ (found >> 31)) % 2**63  # multiples of 2^64 / phi lie apart
    return found


def classify_together(heads: Sequence[ProbeHead], pooled: Sequence[Pooled]) -> list[HeadOutput]:
    """Classify what each head pooled from the same images: heads of one shape at a time, in one product.

    Batch statistics of all cross the processes in one exchange.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, (head, each) in enumerate(zip(heads, pooled, strict=True)):
        groups.setdefault(_shape_of(head, each.features), []).append(i)
    members = list(groups.values())
    features = [_stacked([pooled[i].features for i in group]) for group in members]
    normed = normalize_together([[heads[i].norm for i in group] for group in members], features)
    outputs: dict[int, HeadOutput] = {}
    for group, values in zip(members, normed, strict=True):
        for i, logits in zip(group, _classified([heads[i] for i in group], values), strict=True):
            outputs[i] = HeadOutput(logits.float(), pooled[i].attention, pooled[i].features)
    return [outputs[i] for i in range(len(heads))]


def _shape_of(head: ProbeHead, features: Tensor) -> Hashable:
    """What heads that are classified together have in common; heads that draw at random are by themselves."""
    return (head.shape, head.training, features.dtype, id(head) if head.training and head.drops else None)


def _stacked(features: Sequence[Tensor]) -> Tensor:
    """Features `(G, B, F)` of heads, or `(1, B, F)` if they are the very same."""
    if all(each is features[0] for each in features):
        return features[0][None]
    return torch.stack(list(features), dim=1).transpose(0, 1)  # as batch normalization wants them


def _classified(heads: Sequence[ProbeHead], features: Tensor) -> Sequence[Tensor]:
    """Logits `(B, C)` of heads of one shape from their features `(G, B, F)`, or `(1, B, F)`."""
    if len(heads) == 1 and heads[0].training and heads[0].drops:
        with heads[0].drawing(1):
            return [heads[0].classifier(heads[0].dropout(features[0]))]
    if len(heads) == 1:
        return [heads[0].classifier(heads[0].dropout(features[0]))]
    weights = torch.stack([head.classifier.weight for head in heads])  # (G, C, F)
    biases = torch.stack([head.classifier.bias for head in heads])
    if len(features) == 1:
        logits = F.linear(features[0], weights.flatten(0, 1), biases.flatten())
        return logits.unflatten(1, biases.shape).unbind(1)
    return torch.baddbmm(biases[:, None], features, weights.mT).unbind()
