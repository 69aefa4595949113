"""A map over the input comes back to its place in the image, whatever the processor did."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    EfficientNetImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from attentive_probes.analysis.measures.object_placement import over_image, placement_of

SQUARE = {"height": 64, "width": 64}
PROCESSORS = {
    "squeezed": lambda: ViTImageProcessorPil(size=SQUARE),
    "short side, centre crop": lambda: CLIPImageProcessorPil(size={"shortest_edge": 72}, crop_size=SQUARE),
    "crop without resize": lambda: BitImageProcessorPil(do_resize=False, crop_size=SQUARE),
    "share of the side": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 64}, crop_pct=0.875),
    "not square": lambda: SiglipImageProcessorPil(size={"height": 48, "width": 96}),
    "resize, then crop": lambda: EfficientNetImageProcessorPil(
        size={"height": 72, "width": 72}, do_center_crop=True, crop_size=SQUARE
    ),
    "padded": lambda: CLIPImageProcessorPil(do_resize=False, crop_size={"height": 160, "width": 160}),
}
SIZES = [(100, 100), (150, 90), (97, 140)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_a_bright_square_comes_back_to_its_place(name, size):
    """To a pixel of the input, which is one of a patch."""
    processor, (width, height) = PROCESSORS[name](), size
    box = (width * 0.4, height * 0.45, width * 0.65, height * 0.7)
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = (round(edge) for edge in box)
    pixels[top:bottom, left:right] = 255
    seen = processor([Image.fromarray(pixels)], return_tensors="pt")["pixel_values"][0, 0]
    bright = (seen - seen.min()) / (seen.max() - seen.min())
    placement = placement_of(processor, size)
    found = over_image(bright[None], placement)[0]
    rows, columns = (found.nan_to_num() > 0.5).nonzero().T
    pixel = max(
        (placement.right - placement.left) / seen.shape[1], (placement.bottom - placement.top) / seen.shape[0], 1
    )
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    for edge, expected in zip(edges, (left, top, right, bottom), strict=True):
        assert abs(float(edge) - expected) <= pixel + 0.5


def test_what_was_not_seen_is_no_number():
    """Cut off by the crop; a padded input covers more than the image."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    placement = placement_of(processor, (128, 64))
    assert placement.left == pytest.approx(32, abs=0.5) and placement.right == pytest.approx(96, abs=0.5)
    found = over_image(torch.ones(1, 4, 4), placement)[0]
    assert (
        found[:, :31].isnan().all()
        and found[:, 97:].isnan().all()
        and torch.allclose(found[1:-1, 33:95], torch.tensor(1.0))
    )
    padded = placement_of(CLIPImageProcessorPil(do_resize=False, crop_size={"height": 100, "width": 100}), (50, 80))
    assert padded.left < -20 and padded.right > 70 and padded.top < -5 and padded.bottom > 85
    assert over_image(torch.ones(1, 4, 4), padded).isfinite().all()
