"""Taps belong to the call that asks for them, whatever else reads the same backbone meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep

TAPS = (("block:0",), ("block:1", "last"), ("prenorm",), ("final", "all"), ("block:0", "block:-1", "last"))


def test_threads_hear_their_own_images(tiny_backbone):
    """Eight threads, two sweeps on one backbone, many taps: each call gets the tokens of its images, and no others."""
    runs = {"alf": HeadRun(HeadConfig("alf", {"num_attention_heads": 4}, tokens=("cls@all", "mean@all")))}
    backbone = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, num_labels=3).backbone
    images = torch.randn(16, 2, 3, *backbone.geometry.image_size)
    expected = {(i, taps): backbone(images[i], backbone_taps(backbone, taps)) for i in range(16) for taps in TAPS}

    def wrong(number: int) -> bool:
        i, taps = number % 16, TAPS[number % len(TAPS)]
        found = backbone(images[i], backbone_taps(backbone, taps))
        return any(not torch.equal(found[tap].patches, t.patches) for tap, t in expected[i, taps].items())

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(400))) == 0


def backbone_taps(backbone, taps):
    """Taps as the backbone names them, `all` spelled out."""
    found = []
    for tap in taps:
        found += backbone.geometry.all_taps if tap == "all" else [tap]
    return tuple(dict.fromkeys(found))


def test_a_failed_call_leaves_nothing_behind(tiny_backbone):
    """Whatever a call raises in the middle, the next one hears its own taps alone."""
    sweep = ProbeSweep.from_backbone(
        tiny_backbone("vit"), {"m": HeadRun(HeadConfig("mean", tokens=("patches@block:0",)))}, num_labels=3
    )
    pixels = torch.randn(2, 3, *sweep.backbone.geometry.image_size)
    broken = sweep.backbone.model.layernorm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep.read(pixels)
    broken.remove()
    assert set(sweep.backbone(pixels, ("last",))) == {"last"}
