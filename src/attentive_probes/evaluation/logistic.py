"""Logistic regression by full-batch L-BFGS: the converged linear probe on fixed features, on any device."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ITERATIONS = 1000


class LinearModel(NamedTuple):
    """Weights `(C, F)` and biases `(C,)`."""

    weight: Tensor
    bias: Tensor

    def of_unscaled(self, mean: Tensor, scale: Tensor) -> LinearModel:
        """The same model of features that were not centred by `mean` `(F,)` and divided by `scale` `(F,)`."""
        weight = self.weight / scale
        return LinearModel(weight, self.bias - weight @ mean)

    def __call__(self, features: Tensor) -> Tensor:
        """Scores `(B, C)` of features `(B, F)`."""
        return F.linear(features.to(self.weight.dtype), self.weight, self.bias)


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    num_labels: int,
    inverse_l2: float = 1.0,
    *,
    tolerance: float = 1e-4,
    start: LinearModel | None = None,
) -> LinearModel:
    """Minimize `sum of cross-entropies + ||W||^2 / (2 inverse_l2)`; biases are free. Scikit-learn's problem, its `C`.

    Args:
        features: `(N, F)`; the fit runs in their precision.
        labels: Class ids `(N,)`.
        num_labels: Number of classes C.
        inverse_l2: Inverse strength of the regularization.
        tolerance: Largest entry of the gradient of the mean loss at which to stop, by default where scikit-learn stops.
        start: Where to start, for instance the solution for a stronger regularization; by default from zero.

    Raises:
        ValueError: If `inverse_l2` is not positive.
    """
    if inverse_l2 <= 0:
        raise ValueError(f"inverse_l2 is {inverse_l2}; it must be positive.")
    weight, bias = start or (features.new_zeros(num_labels, features.shape[1]), features.new_zeros(num_labels))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = weight.square().sum() / (2 * inverse_l2 * len(features))
        loss = F.cross_entropy(F.linear(features, weight, bias), labels) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return LinearModel(weight.detach(), bias.detach())
