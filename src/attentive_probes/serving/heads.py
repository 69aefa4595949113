"""Several probes as one service: those on the same backbone share its pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attentive_probes.backbones.geometry import PROJECTED
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.probabilities import best_scores
from attentive_probes.tokens import kinds_by_tap

REMEDY = "send another one"


class SharedPass:
    """Probes that read the same images by the same backbone.

    Args:
        probes: Name -> probe; all have one backbone and one image processor.
    """

    def __init__(self, probes: Mapping[str, ProbeForImageClassification]):
        self.probes = dict(probes)
        first = next(iter(self.probes.values()))
        self.backbone, self.processor = first.backbone, first.image_processor

    def decode(self, content: bytes) -> Tensor:
        """The pixels `(channels, H, W)` of an encoded image.

        Raises:
            ValueError: If it cannot be read.
        """
        cell = {"bytes": content, "path": None}
        image = open_image(cell, "of the request", num_channels=self.backbone.num_channels, remedy=REMEDY)
        assert self.processor is not None
        return self.processor([image], return_tensors="pt")["pixel_values"][0]

    @torch.no_grad()
    def logits(self, requests: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """The logits `(C,)` of each request, a name of a probe and the pixels of an image: one backbone pass."""
        wanted = dict.fromkeys(name for name, _ in requests)
        heads = {name: self.probes[name].head for name in wanted}
        pixels = torch.stack([image for _, image in requests]).to(self.backbone.device)
        tokens = self.backbone(pixels, kinds_by_tap([head.reading for head in heads.values()]))
        found = {name: head(head.read(tokens)).logits.cpu() for name, head in heads.items()}
        return [found[name][place] for place, (name, _) in enumerate(requests)]


def load_served(sources: Sequence[str], device: torch.device | str = "cpu") -> dict[str, SharedPass]:
    """Load probes by folder or Hub id; name of each -> the pass that it is read in, in their order.

    A probe is called as its folder or repository.

    Raises:
        ValueError: If two have the same name, one has no image processor, or one cannot be loaded.
    """
    loaded: dict[str, ProbeForImageClassification] = {}
    backbones: dict[str, Any] = {}
    for source in sources:
        name = Path(source).name
        if name in loaded:
            raise ValueError(f"Two probes are called {name!r}; serve them from folders of different names.")
        config = ProbeForImageClassification.config_class.from_pretrained(source)
        names = (config.backbone_name_or_path, config.backbone_revision, config.backbone_fingerprint)
        key = json.dumps([*names, list(config.image_size), PROJECTED in config.head_config.reading.taps])
        is_own = config.lora or config.self_contained or config.backbone_fingerprint is None
        shared = None if is_own else backbones.get(key)
        probe = ProbeForImageClassification.from_pretrained(source, backbone=shared).to(device).eval()
        if probe.image_processor is None:
            raise ValueError(f"The probe {source!r} has no image processor, and cannot read files.")
        loaded[name] = probe
        if not is_own:
            backbones[key] = probe.backbone
    return _by_pass(loaded)


def _by_pass(loaded: Mapping[str, ProbeForImageClassification]) -> dict[str, SharedPass]:
    members: dict[tuple[int, str], dict[str, ProbeForImageClassification]] = {}
    places = {}
    for name, probe in loaded.items():
        assert probe.image_processor is not None
        key = (id(probe.backbone), json.dumps(probe.image_processor.to_dict(), default=str, sort_keys=True))
        members.setdefault(key, {})[name] = probe
        places[name] = key
    passes = {key: SharedPass(probes) for key, probes in members.items()}
    return {name: passes[key] for name, key in places.items()}


def answer_of(
    probe: ProbeForImageClassification, logits: Tensor, function_to_apply: str | None = None, top_k: int | None = None
) -> list[dict[str, Any]]:
    """The answer of the Hub's image-classification task: labels with scores, best first.

    Args:
        probe: The probe.
        logits: `(C,)`.
        function_to_apply: `softmax` or `sigmoid`, both calibrated as everywhere, or `none` for the logits; by default
            what goes with the problem of the probe.
        top_k: Number of labels; by default 5, all if there are fewer.

    Raises:
        ValueError: If there is no such function, `top_k` is not positive, or the logits are not finite.
    """
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise ValueError(f"top_k is {top_k!r}; it must be a whole number of at least 1.")
    if not logits.isfinite().all():
        raise ValueError("The probe gives no finite scores for this image.")
    best = best_scores(logits, probe.config, 5 if top_k is None else top_k, function_to_apply)
    return [{"label": label, "score": score} for label, score in best]
