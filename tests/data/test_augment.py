import numpy as np
import pytest
from PIL import Image

from attentive_probes.data.pixels.augment import Augmentation


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    """Red tells the column, green the row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns * 6, rows * 8, 0 * rows], -1).astype(np.uint8))


def test_crops_have_the_right_size_area_and_place():
    """Crops come out at the asked size, cover areas within the range, and reach all parts of the image."""
    rng, image = np.random.default_rng(0), gradient()
    augmentation = Augmentation(crop_scale=(0.2, 0.6))
    boxes = np.array([augmentation._box(image.size, rng) for _ in range(500)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = widths * heights / (40 * 30)
    assert areas.min() > 0.17
    assert areas.max() < 0.63
    assert areas.std() > 0.08
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 40).all()
    assert (boxes[:, 3] <= 30).all()
    assert boxes[:, 0].min() == 0
    assert boxes[:, 2].max() == 40
    assert augmentation(image, (12, 20), rng).size == (20, 12)


def test_a_view_shows_a_part_of_the_image():
    """A crop keeps the orientation: colours still grow to the right and downwards, within the original range."""
    view = np.asarray(Augmentation(crop_scale=(0.3, 0.3), flip=False)(gradient(), (16, 16), np.random.default_rng(1)))
    red = view[..., 0].mean(0).astype(float)
    assert (np.diff(red) >= 0).all()
    assert red[-1] - red[0] < 200


def test_flips_happen_half_the_time():
    """Without a crop the image keeps its size, and is mirrored or not."""
    rng, image = np.random.default_rng(0), gradient()
    views = [np.asarray(Augmentation(crop=False)(image, (16, 16), rng)) for _ in range(200)]
    original = np.asarray(image)
    flipped = sum(np.array_equal(view, original[:, ::-1]) for view in views)
    plain = sum(np.array_equal(view, original) for view in views)
    assert flipped + plain == 200
    assert 70 < flipped < 130


@pytest.mark.parametrize(
    "settings", [{"crop_scale": (0.5, 0.2)}, {"crop_scale": (0, 1)}, {"crop_scale": (0.1, 1.2)}, {"crop_ratio": (1,)}]
)
def test_impossible_ranges_are_refused(settings):
    """Empty, negative and too large ranges name themselves."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Augmentation(**settings)
