"""Metrics do not depend on the order of images, nor on the units of targets."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, r2_score

from attentive_probes.problems import PROBLEMS
from attentive_probes.problems.target_scores import TargetScores
from attentive_probes.scores.metrics import mean_absolute_error, mean_average_precision, r2, squared_error
from attentive_probes.scores.ranking import auprc


def test_equal_scores_have_no_order():
    """A head that says the same of all images has the share of positives, whatever the images are sorted by."""
    labels = torch.tensor([[1.0]] * 50 + [[0.0]] * 50)
    for order in (labels, labels.flip(0), labels[torch.randperm(100)]):
        assert mean_average_precision(torch.zeros(100, 1), order) == pytest.approx(50)


def test_average_precision_of_rounded_scores():
    """With many ties it equals scikit-learn's, and that of the metric of one class, in any order."""
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < 0.2).astype(float)
    scores = np.round(rng.normal(size=(300, 4)) + labels)
    expected = 100 * average_precision_score(labels, scores, average="macro")
    for order in (np.arange(300), np.lexsort((-labels[:, 0],)), rng.permutation(300)):
        found = mean_average_precision(torch.from_numpy(scores[order]), torch.from_numpy(labels[order]))
        assert found == pytest.approx(expected)
    assert found == pytest.approx(100 * np.mean([auprc(scores[:, i], labels[:, i] > 0) for i in range(4)]))


def test_targets_count_the_same_in_any_unit():
    """Grams or kilograms: errors, variance explained and the loss that selects are the same; a wrong target shows."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(400, 2, generator=generator)
    found = labels.clone()
    found[:, 1] = -labels[:, 1]
    values = []
    for unit in (torch.tensor([1000.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 250.0])):
        scores = TargetScores(found * unit, labels * unit, PROBLEMS["regression"])
        metrics = scores.metrics()
        values.append([metrics[name] for name in ("loss", "r2", "mean_absolute_error")])
        assert metrics["r2"] == pytest.approx(r2_score(labels * unit, found * unit), rel=1e-4)
    assert values[0] == pytest.approx(values[1], rel=1e-4) and values[1] == pytest.approx(values[2], rel=1e-4)
    assert r2(found, labels) < 0


def test_each_target_is_told_apart():
    """Beside the average, the error of each target in its own unit, and what is explained of it."""
    labels = torch.tensor([[1.0, 100.0], [2.0, 300.0], [3.0, 200.0]])
    scores = TargetScores(labels + torch.tensor([0.5, 0.0]), labels, PROBLEMS["regression"])
    (first, second) = scores.test_metrics(scores)["per_target"]
    assert first[0] == pytest.approx(0.5) and second == pytest.approx([0.0, 1.0])


def test_one_target_keeps_its_unit():
    """Years are years: of a single target the error and the loss are as they were."""
    labels, found = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([12.0, 19.0, 33.0])
    assert mean_absolute_error(found, labels) == pytest.approx(2.0)
    assert squared_error(found, labels) == pytest.approx(14 / 3)
