import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score, roc_curve

from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.scores.image_records import ImageRecords
from attentive_probes.scores.ranking import auprc, auroc, pearson, quadratic_kappa, sensitivity_at, spearman

RNG = np.random.default_rng(0)
TRUTH = RNG.random(300) < 0.3
SCORES = np.round(TRUTH + RNG.normal(0, 0.8, 300), 1)  # with ties


def test_areas_are_those_of_sklearn():
    """With ties, and nothing where there is one kind of image alone."""
    assert auroc(SCORES, TRUTH) == pytest.approx(roc_auc_score(TRUTH, SCORES))
    assert auprc(SCORES, TRUTH) == pytest.approx(average_precision_score(TRUTH, SCORES))
    assert np.isnan(auroc(SCORES, TRUTH & False)) and np.isnan(auprc(SCORES, TRUTH & False))


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95, 1.0])
def test_sensitivity_is_the_best_at_the_specificity(specificity):
    """The largest sensitivity of the ROC curve among thresholds that leave enough negatives alone."""
    false, true, _ = roc_curve(TRUTH, SCORES, drop_intermediate=False)
    assert sensitivity_at(SCORES, TRUTH, specificity) == pytest.approx(true[false <= 1 - specificity + 1e-12].max())


def test_agreement_and_correlation():
    """Quadratic kappa as in sklearn, correlations as in scipy."""
    labels = RNG.integers(0, 4, 200)
    predictions = np.clip(labels + RNG.integers(-1, 2, 200), 0, 3)
    assert quadratic_kappa(labels, predictions, 4) == pytest.approx(
        cohen_kappa_score(labels, predictions, weights="quadratic")
    )
    assert spearman(SCORES, labels[:1].repeat(300) + SCORES**3) == pytest.approx(1.0)
    other = SCORES + RNG.normal(size=300)
    assert spearman(SCORES, other) == pytest.approx(stats.spearmanr(SCORES, other).statistic)
    assert pearson(SCORES, other) == pytest.approx(stats.pearsonr(SCORES, other).statistic)


def test_subgroups_and_intervals():
    """Each value of a column gets its images and metrics; groups widen the intervals."""
    probability = 1 / (1 + np.exp(-4 * (SCORES - 0.5)))
    both = np.stack([1 - probability, probability], 1)
    records = ImageRecords(np.arange(300), TRUTH.astype(int), both.argmax(1), both.max(1), both)
    rows = np.arange(300) + 1000
    hospitals = {int(row): "a" if row < 1100 else "b" for row in rows}
    found = DetailOptions(("auroc", "sensitivity"), slices={"hospital": hospitals}).of(records, rows)
    assert found["auroc"] == pytest.approx(100 * roc_auc_score(TRUTH, probability))
    assert found["auroc_interval"][0] < found["auroc"] < found["auroc_interval"][1]
    assert {name: one["images"] for name, one in found["slices"]["hospital"].items()} == {"a": 100, "b": 200}
    of_b = found["slices"]["hospital"]["b"]
    assert of_b["auroc"] == pytest.approx(100 * roc_auc_score(TRUTH[100:], probability[100:]))
    order = np.argsort(probability)  # neighbours in score are of one patient
    patients = dict(zip((rows[order]).tolist(), (np.arange(300) // 30).astype(str).tolist(), strict=True))
    grouped = DetailOptions(("auroc",), groups=patients).of(records, rows)
    widths = [np.diff(one["auroc_interval"])[0] for one in (found, grouped)]
    assert widths[1] > 1.5 * widths[0]
