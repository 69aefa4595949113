"""Targets of a regression: learned around zero at the size of one, whatever they are, and folded back afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSIFIER = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation `(C,)` of the targets in the training split.

    Heads learn `(target - mean) / deviation`; `fold` makes their last layer give targets again, exactly.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, targets: Tensor) -> TargetScale:
        """The scale of the targets `(N,)` or `(N, C)` of a training split.

        Raises:
            ValueError: If a target is the same for all images.
        """
        columns = targets.double().reshape(len(targets), -1)
        mean, deviation = columns.mean(0), columns.std(0, correction=0)
        constant = (deviation <= 1e-9 * mean.abs().clamp(min=1e-30)).nonzero().flatten().tolist()
        if constant:
            which = "" if columns.shape[1] == 1 else f" {constant[0]}"
            raise ValueError(f"The target{which} is {mean[constant[0]]:g} for all training images: nothing to learn.")
        return cls(mean, deviation)

    def standardized(self, targets: Tensor) -> Tensor:
        """Targets `(B,)` or `(B, C)` as the heads learn them, float32."""
        columns = targets.double().reshape(len(targets), -1)
        scaled = (columns - self.mean.to(targets.device)) / self.deviation.to(targets.device)
        return scaled.float().reshape(targets.shape)

    def restored(self, predictions: Tensor) -> Tensor:
        """Predictions `(B, C)` of heads in training, as targets."""
        mean, deviation = (part.to(predictions.device) for part in (self.mean, self.deviation))
        return (predictions.double() * deviation + mean).float()

    def fold(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """State of a head whose last layer gives targets, from that of one in training."""
        weight, bias = (state[key].double() for key in CLASSIFIER)
        mean, deviation = (part.to(weight.device) for part in (self.mean, self.deviation))
        folded = (weight * deviation[:, None], bias * deviation + mean)
        return {**state, **{key: value.float() for key, value in zip(CLASSIFIER, folded, strict=True)}}

    @torch.no_grad()
    def unfold(self, classifier: nn.Linear) -> None:
        """Turn a last layer that gives targets into one in training: what `fold` undoes."""
        mean, deviation = (part.to(classifier.bias.device) for part in (self.mean, self.deviation))
        classifier.bias.copy_((classifier.bias.double() - mean) / deviation)
        classifier.weight.copy_(classifier.weight.double() / deviation[:, None])
