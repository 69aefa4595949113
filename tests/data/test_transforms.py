"""Augmentation by other libraries: reproducible views, named errors."""

import importlib.util
import random

import numpy as np
import pytest
import torch
from PIL import Image

from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.pixels.transforms import POLICIES
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.fixture
def saved_transform(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations", reason="installed by the extra `augment`, as in `make test`")
    path = tmp_path / "transform.yaml"
    albumentations.save(albumentations.Compose([albumentations.ColorJitter(p=1)]), str(path), data_format="yaml")
    return str(path)


def view(augmentation, seed):
    return np.asarray(augmentation(IMAGE, (16, 24), np.random.default_rng(seed)))


def check_reproducible(augmentation):
    """Same seed, same view, whatever was drawn in between; the plain crop differs, and so does another seed."""
    first = view(augmentation, 1)
    torch.rand(3), random.random(), np.random.rand()
    assert first.shape == (16, 24, 3) and first.dtype == np.uint8
    assert (first == view(augmentation, 1)).all()
    assert any((view(augmentation, seed) != view(Augmentation(), seed)).any() for seed in range(5))
    assert (first != view(augmentation, 2)).any()


def test_albumentations(saved_transform):
    """A saved transform by its file, or the object itself."""
    check_reproducible(Augmentation(transform=saved_transform))
    albumentations = pytest.importorskip("albumentations", reason="installed by the extra `augment`, as in `make test`")
    check_reproducible(Augmentation(transform=albumentations.ColorJitter(p=1)))


@pytest.mark.parametrize("name", POLICIES)
def test_torchvision_policies(name):
    """Every policy, where torchvision is installed; `make test-timm` installs it."""
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(ValueError, match="needs torchvision"):
            Augmentation(transform=name)
        pytest.skip("torchvision is not installed here; `make test-timm` runs this")
    check_reproducible(Augmentation(transform=name))


def test_callables_leave_other_draws_alone():
    """Whatever a callable draws from is seeded for it, and goes on as before for everyone else."""

    def noise(image):
        shift = np.random.randint(1, 100) + random.randint(1, 50) + int(torch.randint(1, 50, ()))
        return Image.fromarray(np.asarray(image) + np.uint8(shift))

    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = (torch.rand(()), random.random(), np.random.rand())
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    check_reproducible_once = view(Augmentation(transform=noise), 1)
    assert (torch.rand(()), random.random(), np.random.rand()) == expected
    assert (check_reproducible_once == view(Augmentation(transform=noise), 1)).all()


@pytest.mark.slow
def test_in_a_recipe(recipe_file, saved_transform):
    """One key of the augmentation block; the run trains on it and saves it."""
    results = run_recipe(Recipe.load(recipe_file, [f"data.augmentation.transform={saved_transform}"]))
    plain = run_recipe(Recipe.load(recipe_file, ["train.overwrite=true"]))
    assert results.heads[0].history[0]["train_loss"] != plain.heads[0].history[0]["train_loss"]


def test_what_does_not_fit_is_named(tmp_path):
    """Unknown policies, missing and broken files, no callables, changed sizes."""
    with pytest.raises(ValueError, match="Did you mean 'rand_augment'"):
        Augmentation(transform="randaugment")
    with pytest.raises(ValueError, match="There is no file"):
        Augmentation(transform=str(tmp_path / "none.yaml"))
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(ValueError, match="no transform saved by albumentations"):
        Augmentation(transform=str(tmp_path / "broken.json"))
    with pytest.raises(ValueError, match="pass a callable or a name"):
        Augmentation(transform=3)
    with pytest.raises(ValueError, match="changed the image size"):
        view(Augmentation(transform=lambda image: image.resize((5, 5))), 0)
