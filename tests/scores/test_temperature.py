import numpy as np
import pytest
from scipy.special import log_softmax

from attentive_probes.scores.temperature import fit_temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature):
    """Labels drawn from softmax(z / T) give T back, also from log-probabilities in the place of z."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5)) * temperature
    shares = np.exp(log_softmax(logits / temperature, axis=1))
    labels = (shares.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(log_softmax(logits, axis=1), labels) == pytest.approx(temperature, rel=0.05)
