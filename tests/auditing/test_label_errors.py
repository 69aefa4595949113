import numpy as np
import pytest
import torch

from attentive_probes.auditing.label_errors import cross_fitted, label_suspects, mutual_confusions
from attentive_probes.auditing.neighbours import (
    equal_pixels,
    find_neighbours,
    near_duplicates,
    outliers,
    standardized,
)
from attentive_probes.data.splitting.folds import folds_of

RNG = np.random.default_rng(0)
LABELS = np.arange(300) % 3
CENTRES = RNG.normal(size=(3, 16)) * 2
FEATURES = torch.from_numpy(CENTRES[LABELS] + RNG.normal(size=(300, 16))).float()


def test_flipped_labels_are_found():
    """Of ten flipped among 300 well separated ones, nine at least, and hardly any other."""
    flipped = RNG.choice(300, 10, replace=False)
    noisy = LABELS.copy()
    noisy[flipped] = (noisy[flipped] + 1) % 3
    probabilities = cross_fitted(FEATURES, torch.from_numpy(noisy), folds_of(noisy, 5, 0), 3)
    assert probabilities.sum(1) == pytest.approx(1)
    found = label_suspects(probabilities, noisy)
    hits = {suspect.row for suspect in found} & set(flipped.tolist())
    assert len(hits) >= 9 and len(found) <= 13
    assert all(suspect.likely == LABELS[suspect.row] for suspect in found if suspect.row in hits)
    assert [suspect.margin for suspect in found] == sorted((s.margin for s in found), reverse=True)


def test_classes_that_are_taken_for_each_other():
    """Only pairs that are confused in both directions count."""
    labels, predictions = np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], 10)
    predictions[:2], predictions[10:13], predictions[20:24] = 1, 0, 0
    probabilities = np.eye(3)[predictions]
    (pair,) = mutual_confusions(probabilities, labels)
    assert (pair.first, pair.second, pair.first_as_second, pair.second_as_first) == (0, 1, 0.2, 0.3)


def test_copies_and_images_like_no_other():
    """A copy with a little noise is near, by features; something far from everything is an outlier."""
    copies = FEATURES[:4] + 0.01 * torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    neighbours = find_neighbours(standardized(torch.cat([FEATURES, copies]), FEATURES))
    assert {pair[:2] for pair in near_duplicates(neighbours)} == {(i, 300 + i) for i in range(4)}
    lengths = torch.nn.functional.normalize(FEATURES.abs() + 3, dim=1)  # all on one side
    strange = torch.nn.functional.normalize(-torch.ones(1, 16), dim=1)
    assert [row for row, _ in outliers(find_neighbours(torch.cat([lengths, strange])))] == [300]


def test_equal_pixels():
    """Brighter and slightly noisy thumbnails are equal, blank ones are not."""
    thumbnails = RNG.uniform(0, 255, (20, 256))
    thumbnails[10] = 0.8 * thumbnails[3] + 20
    thumbnails[11] = thumbnails[5] + RNG.normal(0, 2, 256)
    thumbnails[12:14] = 255
    assert [pair[:2] for pair in equal_pixels(thumbnails)] == [(3, 10), (5, 11)]
