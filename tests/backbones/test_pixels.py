"""Raw 8-bit pixels: what the device makes of them is what the image processor would have made."""

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from attentive_probes.backbones import RAW, PixelNormalization
from attentive_probes.backbones.vision_backbone import VisionBackbone
from attentive_probes.data.batches import Collator, make_collator, make_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.steps import StepPlan
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from tiny import image_dataset

IMAGES = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + i, 90, 3), dtype=np.uint8)) for i in range(3)]
PROCESSORS = [
    hf.ViTImageProcessorPil(size={"height": 32, "width": 48}),
    hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    hf.BitImageProcessorPil(image_mean=[0.2, 0.5, 0.9], image_std=[0.1, 0.2, 0.3], size={"shortest_edge": 24}),
    hf.ViTImageProcessorPil(do_normalize=False),
    hf.ViTImageProcessorPil(do_rescale=False, do_normalize=False),
]


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: type(p).__name__)
def test_normalized_on_the_device_equals_the_processor(processor):
    """Raw pixels, normalized, are the pixels of the whole processor."""
    normalization = PixelNormalization.of(processor)
    for image in IMAGES:
        raw = processor([image], return_tensors="pt", **RAW)["pixel_values"]
        assert raw.dtype == torch.uint8
        whole = processor([image], return_tensors="pt")["pixel_values"].float()
        torch.testing.assert_close(normalization(raw), whole, atol=2e-6, rtol=1e-6)


def test_processors_that_end_otherwise_are_left_alone():
    """A step that is no scale and shift per channel, or no 8-bit pixels before it: no normalization."""

    class Squaring(hf.ViTImageProcessorPil):
        def __call__(self, images, **arguments):
            found = super().__call__(images, **arguments)
            if arguments.get("do_normalize", True):
                found["pixel_values"] = found["pixel_values"] ** 2
            return found

    class Deaf(hf.ViTImageProcessorPil):
        def __call__(self, images, do_rescale=True, do_normalize=True, **arguments):
            return super().__call__(images, **arguments)

    assert PixelNormalization.of(Squaring()) is None
    assert PixelNormalization.of(Deaf()) is None


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_carry_bytes_and_tokens_stay_the_same(tiny_backbone, num_workers):
    """A loader sends 8-bit pixels; the backbone says about them what it says about normalized ones."""
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), labels=[f"band {i}" for i in range(3)])
    split = ImageSplit("test", image_dataset(5), ImageOptions(), LabelEncoder.of_probe(probe.config))
    collator = make_collator(split, probe.image_processor, probe.backbone)
    plain = Collator(split, probe.image_processor, probe.backbone.geometry.image_size)
    for (batch,), (expected,) in zip(
        make_loader(split, collator, StepPlan(2), train=False, num_workers=num_workers),
        make_loader(split, plain, StepPlan(2), train=False),
        strict=True,
    ):
        assert batch["pixel_values"].dtype == torch.uint8
        found, whole = (probe.backbone(b["pixel_values"])["last"].patches for b in (batch, expected))
        torch.testing.assert_close(found, whole)


def test_raw_pixels_without_a_normalization_are_refused(tiny_backbone):
    """A backbone that was never told how to normalize says so."""
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), labels=["a", "b"])
    assert isinstance(probe.backbone, VisionBackbone)
    with pytest.raises(ValueError, match="raw 8-bit pixels"):
        probe(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
