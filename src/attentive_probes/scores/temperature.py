"""One number that makes probabilities mean what they say ("On Calibration of Modern Neural Networks", 1706.04599)."""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T for which softmax(z / T) has the least mean negative log-likelihood.

    Args:
        log_probabilities: Logits `(N, C)`, up to a constant per image.
        labels: Class ids `(N,)`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    rows, z = np.arange(len(labels)), np.maximum(log_probabilities.astype(np.float64), -1e4)

    def loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(f"{np.exp(found.x):.4g}")
