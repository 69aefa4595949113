"""The profile of a run: what it measures, what it concludes, and that it leaves nothing behind."""

import pytest

from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import profile_recipe
from attentive_probes.training import profile as profile_module
from attentive_probes.training.profile import Profile

SLOW_BACKBONE = Profile(decode=100, process=100, backbone=10, heads=1000, num_images=100, num_epochs=10, num_workers=0)
SLOW_IMAGES = Profile(decode=20, process=30, backbone=1000, heads=1000, num_images=600, num_epochs=1, num_workers=2)


def test_a_recipe_is_profiled_and_untouched(recipe_file, tmp_path, monkeypatch):
    """Every stage has a rate, the estimates follow from them, and no run folder appears."""
    monkeypatch.setattr(profile_module, "SECONDS", 0.1)
    profile = profile_recipe(Recipe.load(recipe_file))
    assert min(profile.decode, profile.process, profile.backbone, profile.heads) > 0
    assert (profile.num_images, profile.num_epochs, profile.num_workers) == (40, 4, 0)
    assert profile.seconds("cached") < profile.seconds("online")
    assert not (tmp_path / "run").exists()


def test_estimates():
    """Stages add up where they wait for each other; workers run beside the step."""
    assert SLOW_BACKBONE.images_in == pytest.approx(50)
    assert SLOW_BACKBONE.seconds("online") == pytest.approx(10 * 100 * (1 / 50 + 1 / 10 + 1 / 1000))
    assert SLOW_BACKBONE.seconds("cached") == pytest.approx(100 * (1 / 50 + 1 / 10) + 10 * 100 / 1000)
    assert SLOW_IMAGES.images_in == pytest.approx(24)
    assert SLOW_IMAGES.seconds("online") == pytest.approx(600 / 24)


def test_advice():
    """Each bottleneck is met with its own setting, and only with that."""
    (advice,) = SLOW_BACKBONE.advice("online")
    assert "data.tokens=cached" in advice
    assert SLOW_BACKBONE.advice("cached") == []
    assert "jpeg_min_size" in SLOW_IMAGES.advice("cached")[-1]


def test_streams_have_no_profile(recipe_file):
    """A stream cannot be measured twice; the error says so."""
    changes = ["data.streaming=true", "train.max_steps=2", "data.num_labels=3"]
    with pytest.raises(ValueError, match="no stream"):
        profile_recipe(Recipe.load(recipe_file, changes))
