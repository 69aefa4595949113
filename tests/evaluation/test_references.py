import json
from unittest.mock import MagicMock

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.evaluation.knn import knn_scores
from attentive_probes.evaluation.logistic import fit_logistic
from attentive_probes.evaluation.references import Features, Reference, evaluate_reference, read_features
from golden_data import FOLDER


def golden():
    with safe_open(FOLDER / "knn.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 (no mapping)


def clusters(num_images, seed):
    """Three noisy clusters in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 3
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    return Features(centres[labels] + 0.8 * torch.randn(num_images, 8, generator=generator), labels)


@pytest.mark.parametrize("chunk_size", [1024, 7])
def test_knn_is_the_published_one(chunk_size):
    """Shares of votes of every golden k and temperature, in one pass, however the queries are cut."""
    tensors, metadata = golden()
    ks, temperatures = json.loads(metadata["ks"]), json.loads(metadata["Ts"])
    votes = knn_scores(
        tensors["train_features"], tensors["train_labels"], tensors["test_features"],
        int(metadata["num_classes"]), ks, temperatures, chunk_size,
    )  # fmt: skip
    for (k, temperature), found in votes.items():
        expected = tensors[f"scores_k{k}_T{temperature}"].double()
        assert (found.exp() - expected / expected.sum(1, keepdim=True)).abs().max() <= 1e-5
        assert torch.equal(found.argmax(1), tensors[f"pred_k{k}_T{temperature}"])


def test_knn_needs_a_bank():
    """More neighbours than images, or no temperature, are named."""
    features = clusters(6, 0)
    with pytest.raises(ValueError, match="at most the 6 images"):
        knn_scores(*features, features.values, 3, [7], [0.07])
    with pytest.raises(ValueError, match="must be positive"):
        knn_scores(*features, features.values, 3, [3], [0.0])


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_logistic_regression_is_that_of_scikit_learn(strength):
    """Probabilities and weights of the same problem agree."""
    train, test = clusters(90, 1), clusters(40, 2)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(train.values.double(), train.labels)
    expected = torch.from_numpy(theirs.predict_proba(test.values.double()))
    exact = Features(train.values.double(), train.labels)
    ours = fit_logistic(*exact, 3, strength, tolerance=1e-9)
    assert torch.allclose(ours(test.values).softmax(1), expected, atol=2e-5)
    assert torch.allclose(ours.weight, torch.from_numpy(theirs.coef_), atol=1e-3)
    warm = fit_logistic(*exact, 3, strength, tolerance=1e-9, start=fit_logistic(*exact, 3, strength / 10))
    assert torch.allclose(warm.weight, ours.weight, atol=1e-4)
    fast = fit_logistic(*train, 3, strength)  # in float32, with the usual tolerance
    assert (fast(test.values).argmax(1) == expected.argmax(1)).double().mean() > 0.97


@pytest.mark.parametrize("method", ["knn", "logistic"])
def test_settings_are_chosen_on_validation(method):
    """The best setting on validation is used for the test split, whatever the test split says."""
    train, validation, test = clusters(60, 1), clusters(30, 2), clusters(200, 3)
    reference = Reference(method, k=[1, 5, 50], inverse_l2=[1e-6, 1.0])
    found = evaluate_reference(reference, train, validation, test, 3)
    worse = Features(-test.values, test.labels)
    assert evaluate_reference(reference, train, validation, worse, 3).settings == found.settings
    assert found.validation > 70 and (found.test_scores.argmax(1) == test.labels).double().mean() > 0.7
    assert evaluate_reference(reference, train, validation, None, 3).test_scores is None


def test_features_of_images_and_of_cached_tokens(tiny_backbone):
    """The same, from either; several tokens lie side by side."""
    runs = {"mean": HeadRun(HeadConfig("mean"))}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=["a", "b"])
    reading = Reference(tokens=("cls", "mean")).head.reading
    pixels, labels = torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 0, 1, 1])
    tokens = sweep.backbone(pixels)
    found = []
    for batch in ({"pixel_values": pixels, "labels": labels}, {"tokens": tokens, "labels": labels}):
        loader = MagicMock(split=MagicMock(holds_tokens=False))
        loader.__iter__.return_value = [[batch]]
        found.append(read_features(sweep, loader, [reading], Accelerator())[reading])
    expected = torch.cat([tokens["last"].cls[:, 0], tokens["last"].patches.mean(1)], 1)
    for features in found:
        assert torch.allclose(features.values, expected, atol=1e-6)
        assert torch.equal(features.labels, labels)


def test_impossible_references():
    """Unknown methods and features of all patches are refused."""
    with pytest.raises(ValueError, match="Did you mean 'knn'"):
        Reference("knnn")
    with pytest.raises(ValueError, match="read 'mean' instead"):
        Reference(tokens=("patches",))
