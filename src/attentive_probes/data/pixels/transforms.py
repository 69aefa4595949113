"""Further augmentation by other libraries: policies of torchvision, transforms of albumentations, any callable."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attentive_probes.checks import unknown_name
from attentive_probes.machine.installation import how_to_install

POLICIES = {
    "trivial_augment": "TrivialAugmentWide",
    "rand_augment": "RandAugment",
    "auto_augment": "AutoAugment",
    "aug_mix": "AugMix",
}
ENDINGS = (".json", ".yaml", ".yml")

View = Callable[[Image.Image, int], Image.Image]


def seeded_transform(transform: Any) -> View:
    """A transform as a function of an RGB image and a seed, on which alone its draws depend.

    Args:
        transform: Name of a torchvision policy (`POLICIES`); a file written by `albumentations.save`; an albumentations
            transform; or any callable from image to image.

    Raises:
        ValueError: If it is none of these, or its library is not installed.
    """
    if isinstance(transform, str):
        transform = _load_file(transform) if transform.endswith(ENDINGS) else _policy(transform)
    if not callable(transform):
        raise ValueError(f"The augmentation's transform is a {type(transform).__name__}; pass a callable or a name.")
    if hasattr(transform, "set_random_seed"):
        return _Albumentations(transform)
    return _Seeded(transform)


class _Seeded:
    def __init__(self, transform: Callable[[Image.Image], Image.Image]):
        self.transform = transform

    def __repr__(self) -> str:
        return repr(self.transform)

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed)
                return self.transform(image)
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


class _Albumentations:
    def __init__(self, transform: Any):
        self.transform = transform

    def __repr__(self) -> str:
        return repr(self.transform)

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        self.transform.set_random_seed(seed)
        return Image.fromarray(self.transform(image=np.asarray(image))["image"])


def _policy(name: str) -> Callable[[Image.Image], Image.Image]:
    if name not in POLICIES:
        raise ValueError(unknown_name("augmentation policy (or file of albumentations)", name, POLICIES))
    try:
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:  # RuntimeError: a build for another torch
        raise ValueError(f"The policy {name!r} needs torchvision, which does not load here ({error}).") from error
    return getattr(v2, POLICIES[name])()


def _load_file(path: str) -> Any:
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path!r} of an albumentations transform.")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
    try:
        import albumentations
    except ImportError as error:
        raise ValueError(f"{path!r} needs albumentations: {how_to_install('augment')}.") from error
    try:
        return albumentations.load(path, data_format="json" if path.endswith(".json") else "yaml")
    except Exception as error:  # it raises whatever its parsers raise
        raise ValueError(f"{path!r} is no transform saved by albumentations: {error}") from error
