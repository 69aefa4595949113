"""One file, the same pixels everywhere: every kind of image, in training, evaluation, prediction and pipelines."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel, pipeline

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.data.batches import make_collator
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.pixels import decode
from attentive_probes.data.pixels.decode import image_endings, open_file, open_image
from attentive_probes.evaluation.prediction import predict_files
from tiny import COMMON, SIZE

RAMP = np.linspace(0, 1, 64 * 48).reshape(64, 48)


def opened(array, image_format, mode=None, **options):
    file = io.BytesIO()
    image = PILImage.fromarray(array)
    (image.convert(mode) if mode else image).save(file, image_format, **options)
    return np.asarray(open_image({"path": None, "bytes": file.getvalue()}, "ramp"))


@pytest.mark.parametrize(
    ("array", "image_format"),
    [
        ((RAMP * 255).round().astype(np.uint8), "PNG"),
        ((RAMP * 65535).round().astype(np.uint16), "PNG"),
        ((RAMP * 65535).round().astype(np.uint16), "TIFF"),
        ((RAMP * 65535).round().astype(">u2"), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
    ],
)
def test_depths(array, image_format):
    """8 bits, 16 bits in both orders of bytes, and floating point from 0 to 1 are one picture."""
    pixels = opened(array, image_format).astype(float)
    assert pixels.shape == (64, 48, 3)
    assert np.abs(pixels - 255 * RAMP[..., None]).max() <= 0.51


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ((RAMP * 65535).astype(np.int32), "32-bit integers, and nothing says which is white"),
        ((RAMP * 255).astype(np.float32), "from 0 to 255, and nothing says"),
        ((RAMP - 0.5).astype(np.float32), "from -0.5 to 0.5"),
        (np.full((4, 4), np.nan, np.float32), "nothing says"),
    ],
)
def test_depths_without_a_white_are_refused(array, message):
    """What has no white is refused by name, not clipped."""
    with pytest.raises(ValueError, match=message):
        opened(array, "TIFF")


def test_alpha_is_laid_over_white():
    """Of RGBA, grey and palette alike; half of black is grey; without alpha nothing changes."""
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, 2:, 3], rgba[:2, :2, 3] = 128, 255
    assert opened(rgba, "PNG")[[0, 3, 0], [0, 0, 3], 0].tolist() == [0, 255, 127]
    assert opened(rgba, "PNG", "LA")[[0, 3, 0], [0, 0, 3], 0].tolist() == [0, 255, 127]
    palette = PILImage.fromarray(np.eye(4, dtype=np.uint8), "P")
    palette.putpalette([200, 0, 0, 0, 0, 200])
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=0)
    pixels = np.asarray(open_image({"path": None, "bytes": file.getvalue()}, "palette"))
    assert pixels[0, 1].tolist() == [255, 255, 255] and pixels[0, 0].tolist() == [0, 0, 200]


def test_orientation_frames_and_inks():
    """EXIF turns upright, an animation gives its first frame, CMYK and 1-bit become RGB."""
    exif = PILImage.Exif()
    exif[0x0112] = 6
    turned = opened((RAMP * 255).astype(np.uint8), "PNG", exif=exif)
    assert turned.shape == (48, 64, 3) and turned[0, 0, 0] > turned[0, -1, 0]
    file = io.BytesIO()
    frames = [PILImage.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(open_image({"bytes": file.getvalue(), "path": None}, "gif"))[0, 0].tolist() == [255, 0, 0]
    white = np.full((4, 4, 3), 255, np.uint8)
    assert (opened(white, "TIFF", "CMYK") == 255).all() and (opened(white, "PNG", "1") == 255).all()


def test_what_pillow_cannot_read(tmp_path, monkeypatch):
    """A TIFF of many bands says so; a plug-in of Pillow is asked for what it adds."""
    with pytest.raises(ValueError, match="TIFF with more bands than four"):
        open_image({"path": None, "bytes": b"II*\0" + bytes(64)}, "bands")
    with pytest.raises(ValueError, match="it is no image"):
        open_image({"path": None, "bytes": b"plain text"}, "text")
    asked = []
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=lambda: asked.append(1)))
    decode.register_plugins.cache_clear()
    decode.register_plugins()
    assert asked == [1]


def files_of_all_kinds(folder):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    images = {
        "rgb.png": PILImage.fromarray(noise[..., :3].copy()),
        "grey.png": PILImage.fromarray(noise[..., 0].copy()),
        "alpha.png": PILImage.fromarray(noise),
        "deep.png": PILImage.fromarray(rng.integers(0, 65536, (20, 30), dtype=np.uint16)),
        "photo.jpg": PILImage.fromarray(noise[..., :3].copy()),
        "ink.tif": PILImage.fromarray(noise[..., :3].copy()).convert("CMYK"),
        "palette.gif": PILImage.fromarray(noise[..., :3].copy()).convert("P"),
    }
    exif = PILImage.Exif()
    exif[0x0112] = 6
    for name, image in images.items():
        image.save(folder / name, **({"exif": exif} if name == "photo.jpg" else {}))
    return [folder / name for name in images]


@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_one_file_gives_the_same_pixels_everywhere(tmp_path, num_channels):
    """Held, streamed, evaluated, predicted and in a pipeline, for backbones of one, three and four channels."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(**COMMON, num_channels=num_channels)).save_pretrained(tmp_path / "vit")
    numbers = {"image_mean": [0.4] * num_channels, "image_std": [0.3] * num_channels}
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, **numbers).save_pretrained(tmp_path / "vit")
    probe = ProbeForImageClassification.from_backbone(str(tmp_path / "vit"), HeadConfig("mean"), num_labels=2).eval()
    probe.save_pretrained(tmp_path / "probe")
    (tmp_path / "images").mkdir()
    files = files_of_all_kinds(tmp_path / "images")
    data = Dataset.from_dict({"image": list(map(str, files)), "label": [0] * len(files)}).cast_column("image", Image())
    pixels = {}
    for name, dataset in (("held", data), ("stream", data.to_iterable_dataset())):
        encoder = LabelEncoder.of_probe(probe.config)
        split = open_split("test", dataset, ImageOptions(), encoder, num_channels=num_channels)
        batch = make_collator(split, probe.image_processor, probe.backbone)(list(split))
        pixels[name] = probe.backbone.normalization(batch["pixel_values"])
    assert torch.equal(pixels["held"], pixels["stream"])
    assert pixels["held"].shape == (len(files), num_channels, SIZE, SIZE)
    expected = probe(pixels["held"]).logits.softmax(-1)[:, 0]
    predicted = [dict(zip(p.labels, p.scores, strict=True))["LABEL_0"] for p in predict_files(probe, files)]
    served = pipeline("image-classification", model=str(tmp_path / "probe"))
    by_path = [{row["label"]: row["score"] for row in served(str(file))}["LABEL_0"] for file in files]
    by_image = []
    for file in files:
        with PILImage.open(file) as image:
            by_image.append({row["label"]: row["score"] for row in served(image)}["LABEL_0"])
    for scores in (predicted, by_path, by_image):
        assert scores == pytest.approx(expected.tolist(), abs=1e-6)


def test_formats_that_run_programs_are_refused(tmp_path, monkeypatch):
    """PostScript is a program: it is neither started nor taken for an image, whatever its name."""
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("a program was started"))
    file = io.BytesIO()
    PILImage.new("RGB", (4, 4)).save(file, "EPS")
    for name in ("a.eps", "a.png"):
        (tmp_path / name).write_bytes(file.getvalue())
        with pytest.raises(ValueError, match="PostScript, which other programs would have to run; save it as PNG"):
            open_file(tmp_path / name)
    assert not {".eps", ".ps", ".wmf"} & image_endings()
