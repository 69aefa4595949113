"""Image processors: the stored one, or one from the stored numbers, always in the size that the probe reads."""

import json

import numpy as np
import pytest
import torch
import transformers as hf
from matrix import config_of
from PIL import Image

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.backbones import fit_processor, image_size_of, load_image_processor, timm_processor

DINOV3 = {
    "image_processor_type": "DINOv3ViTImageProcessor", "do_resize": True, "size": {"height": 32, "width": 48},
    "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))


def stored(content, folder):
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return str(folder)


def pixels_of(processor, image=IMAGE):
    return processor(image, return_tensors="pt")["pixel_values"]


def test_sizes_come_from_the_processor(tmp_path):
    """A centre crop wins over a resize, the processor over the configuration."""
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 24})
    assert image_size_of(hf.ViTConfig(image_size=16), processor) == (32, 24)
    assert image_size_of(hf.ViTConfig(image_size=16)) == (16, 16)
    assert image_size_of(hf.VJEPA2Config(crop_size=48)) == (48, 48)
    assert image_size_of(hf.Siglip2VisionConfig(num_patches=100, patch_size=8)) == (80, 80)
    with pytest.raises(ValueError, match="names no image size; pass image_size"):
        image_size_of(hf.ResNetConfig())
    with pytest.raises(ValueError, match="no image processor"):
        load_image_processor(str(tmp_path))


def test_a_processor_without_a_pil_class_is_rebuilt(tmp_path):
    """DINOv3's needs torchvision; ours does what its numbers say: resize, rescale, normalize."""
    processor = load_image_processor(stored(DINOV3, tmp_path))
    resized = np.asarray(IMAGE.resize((48, 32), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    expected = (torch.from_numpy(resized) - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])
    assert torch.allclose(pixels_of(processor)[0], expected.permute(2, 0, 1), atol=1e-5)


def test_video_processors_give_still_images(tmp_path):
    """V-JEPA 2's is a video processor: its numbers make one for images, crop included."""
    video = {"video_processor_type": "VJEPA2VideoProcessor", "size": {"shortest_edge": 40}, "crop_size": 32}
    assert pixels_of(load_image_processor(stored(video, tmp_path))).shape == (1, 3, 32, 32)


CROP = {"height": 16, "width": 16}
CONTENTS = {
    "patch vectors": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 16, "max_num_patches": 64},
    "free shapes": {"image_processor_type": "PixtralImageProcessor", "patch_size": CROP, "size": {"longest_edge": 64}},
    "clips": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 20}, "crop_size": CROP},
    "crop": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "crop_size": CROP},
    "square": {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}},
    "as they come": {"image_processor_type": "ViTImageProcessor", "do_resize": False},
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_every_processor_is_fitted_to_the_size_that_is_read(content, tmp_path):
    """Patch vectors, free shapes, clips, other sizes: all give way to images of one size with the same numbers."""
    numbers = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    fitted = fit_processor(load_image_processor(stored(content | numbers, tmp_path)), (48, 64))
    assert pixels_of(fitted).shape == (1, 3, 48, 64)
    assert list(fitted.image_mean) == [0.1, 0.2, 0.3]
    if "crop_size" in content:  # the crop keeps its share: 16 of 20 becomes 64 of 80
        assert fitted.size["shortest_edge"] == 80


def test_a_fitting_processor_is_kept():
    """Nothing is replaced without need."""
    processor = hf.ViTImageProcessorPil(size={"height": 32, "width": 32})
    assert fit_processor(processor, (32, 32)) is processor


def test_a_processor_that_cannot_fit_is_refused():
    """Three channels for a backbone of one: the text names both shapes."""
    with pytest.raises(ValueError, match=r"gives images of shape \(3, 32, 32\), but the backbone reads \(1, 32, 32\)"):
        fit_processor(hf.ViTImageProcessorPil(), (32, 32), num_channels=1)


def test_timm_transforms_come_from_its_numbers():
    """Crop share, interpolation, mean and standard deviation of a timm model, without torchvision."""
    published = {"input_size": (3, 32, 32), "crop_pct": 0.8, "interpolation": "bilinear", "mean": [0, 0, 0]}
    processor = timm_processor(hf.TimmWrapperConfig(pretrained_cfg=published))
    assert processor.size["shortest_edge"] == 40 and processor.crop_size["height"] == 32
    assert processor.resample == Image.Resampling.BILINEAR
    assert pixels_of(processor).shape == (1, 3, 32, 32)


def test_another_size_brings_a_matching_processor(tmp_path):
    """A probe on larger, non-square images saves a processor that makes them."""
    hf.ViTModel(config_of("vit"), add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    hf.ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "vit")
    probe = ProbeForImageClassification.from_backbone(
        str(tmp_path / "vit"), HeadConfig(), labels=["a", "b"], image_size=(96, 128), device_map="cpu"
    )
    probe.save_pretrained(tmp_path / "probe")
    (best, _) = hf.pipeline("image-classification", model=str(tmp_path / "probe"))(IMAGE)
    assert best["label"] in "ab"
