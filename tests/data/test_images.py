import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value
from PIL import Image as PILImage
from transformers import ViTImageProcessorPil

from attentive_probes import ProbeConfig
from attentive_probes.data.batches import Collator, make_loader
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.steps import StepPlan
from tiny import image_dataset

NAMES = ["band 0", "band 1", "band 2"]
PROCESSOR = ViTImageProcessorPil(size={"height": 16, "width": 16})


def encoder(names=NAMES, problem_type="single_label_classification") -> LabelEncoder:
    config = ProbeConfig(
        id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}, problem_type=problem_type
    )
    return LabelEncoder.of_probe(config)


def png(image: PILImage.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def of_bytes(cells: list[bytes], labels: list[int]) -> Dataset:
    features = Features({"image": Image(), "label": Value("int64")})
    return Dataset.from_dict({"image": [{"bytes": c, "path": None} for c in cells], "label": labels}, features=features)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    """Grey, alpha, palette and other modes are converted, not an error."""
    image = PILImage.new("RGB", (8, 8), (10, 200, 30))
    image = PILImage.new("I;16", (8, 8), 7) if mode == "I;16" else image.convert(mode)
    split = ImageSplit("train", of_bytes([png(image, "TIFF")], [0]), ImageOptions(), encoder())
    assert split[0].image.mode == "RGB"


def test_large_jpegs_are_decoded_at_a_reduced_scale():
    """No side gets smaller than asked for, the picture stays the same; small images and other formats are untouched."""
    gradient = np.linspace(0, 255, 800 * 600 * 3).reshape(600, 800, 3).astype(np.uint8)
    photo = PILImage.fromarray(gradient)
    cells = [png(photo, "JPEG"), png(photo), png(photo.resize((40, 30)), "JPEG")]
    split = ImageSplit("train", of_bytes(cells, [0, 1, 2]), ImageOptions(jpeg_min_size=100), encoder())
    assert [split[i].image.size for i in range(3)] == [(200, 150), (800, 600), (40, 30)]
    difference = np.asarray(split[0].image, float) - np.asarray(
        photo.resize((200, 150), PILImage.Resampling.BOX), float
    )
    assert abs(difference).mean() < 4
    with pytest.raises(ValueError, match="jpeg_min_size is 0"):
        ImageOptions(jpeg_min_size=0)


@pytest.fixture
def with_a_truncated_image():
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    good = png(PILImage.fromarray(noise), "JPEG")
    return of_bytes([good, good[: len(good) // 2], good], [0, 1, 2])


def test_a_truncated_image_is_named_before_training(with_a_truncated_image):
    """The policy `raise` names the row and says how many there are."""
    with pytest.raises(ValueError, match=r"1 of 3 train images: The image in row 1 cannot be read .*unreadable='skip'"):
        ImageSplit("train", with_a_truncated_image, ImageOptions(), encoder())


def test_a_truncated_file_is_named_by_its_path(with_a_truncated_image, tmp_path):
    """An image that came from a file is named by that file."""
    broken = tmp_path / "holiday.jpg"
    broken.write_bytes(with_a_truncated_image.cast_column("image", Image(decode=False))[1]["image"]["bytes"])
    data = Dataset.from_dict({"image": [str(broken)], "label": [0]})
    with pytest.raises(ValueError, match=r"holiday\.jpg cannot be read"):
        ImageSplit("train", data, ImageOptions(), encoder())


def test_an_empty_cell_is_named():
    """A row without an image is an unreadable image, not a crash."""
    features = Features({"image": Image(), "label": Value("int64")})
    cell = {"bytes": png(PILImage.new("RGB", (8, 8))), "path": None}
    data = Dataset.from_dict({"image": [cell, None], "label": [0, 1]}, features=features)
    with pytest.raises(
        ValueError, match=r"1 of 2 train images: The image in row 1 cannot be read \(the cell is empty\)"
    ):
        ImageSplit("train", data, ImageOptions(), encoder())


def test_a_truncated_image_can_be_skipped(with_a_truncated_image):
    """The policy `skip` leaves it out and counts it; streams do the same as they pass."""
    options = ImageOptions(unreadable="skip")
    split = ImageSplit("train", with_a_truncated_image, options, encoder())
    assert (len(split), split.num_unreadable) == (2, 1)
    assert [split[i].label for i in range(2)] == [0, 2]
    stream = ImageStream("train", with_a_truncated_image.to_iterable_dataset(), options, encoder())
    assert [example.label for example in stream] == [0, 2]
    assert stream.num_unreadable == 1
    with pytest.raises(ValueError, match="at position 1 of the train stream"):
        list(ImageStream("train", with_a_truncated_image.to_iterable_dataset(), ImageOptions(), encoder()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImageOptions(image_column="img"), "set image_column: 'img'.*Valid: image, label"),
        (ImageOptions(label_column="labels"), "set label_column: 'labels'. Did you mean 'label'"),
        (ImageOptions(image_column="label", label_column="image"), "no labels; name another label_column"),
        (ImageOptions(image_column="label"), "no images or paths"),
    ],
)
def test_wrong_columns_are_named(options, message):
    """A missing column names the nearest one; a column of numbers is no image column."""
    with pytest.raises(ValueError, match=message):
        open_split("train", image_dataset(3), options, encoder())


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_named(label):
    """The error names label, row, split and range."""
    cell = png(PILImage.new("RGB", (8, 8)))
    data = of_bytes([cell] * 3, [0, label, 2])
    with pytest.raises(
        ValueError, match=rf"label {label} in row 1 of the test split: .* is not a class id from 0 to 2"
    ):
        ImageSplit("test", data, ImageOptions(), encoder())
    with pytest.raises(ValueError, match="at position 1 of the test stream"):
        list(ImageStream("test", data.to_iterable_dataset(), ImageOptions(), encoder()))


def test_classes_are_matched_by_name():
    """Another order of the same classes is translated; an unknown class is an error; names in text work too."""
    cell = png(PILImage.new("RGB", (8, 8)))

    def data(names, labels):
        features = Features({"image": Image(), "label": ClassLabel(names=names)})
        return Dataset.from_dict(
            {"image": [{"bytes": cell, "path": None}] * len(labels), "label": labels}, features=features
        )

    split = ImageSplit("test", data(["band 2", "band 0"], [0, 1, 0]), ImageOptions(), encoder())
    assert [split[i].label for i in range(3)] == [2, 0, 2]
    with pytest.raises(ValueError, match="knows no class 'stripe'"):
        ImageSplit("test", data(["band 0", "stripe"], [0, 1]), ImageOptions(), encoder())
    text = of_bytes([cell] * 2, [0, 0]).remove_columns("label").add_column("label", ["band 2", "band 1"])
    split = ImageSplit("test", text, ImageOptions(), encoder())
    assert [split[i].label for i in range(2)] == [2, 1]
    with pytest.raises(ValueError, match=r"have no names; give it their list"):
        ImageSplit("test", text, ImageOptions(), encoder([f"LABEL_{i}" for i in range(3)]))


@pytest.mark.parametrize(
    ("problem_type", "good", "bad"),
    [
        ("multi_label_classification", [[1, 0, 1], [0, 0, 0]], [[1, 0, 1], [0, 2, 0]]),
        ("multi_label_classification", [[1, 0, 1], [0, 0, 0]], [[1, 0], [0, 1]]),
        ("regression", [[0.5, 1, -2], [0, 0, 0]], [[0.5, 1, -2], [0, float("nan"), 0]]),
    ],
)
def test_rows_of_targets(problem_type, good, bad):
    """Multi-label takes rows of zeros and ones, regression finite numbers; anything else is named."""
    cells = [{"bytes": png(PILImage.new("RGB", (8, 8))), "path": None}] * 2
    features = Features({"image": Image(), "label": Sequence(Value("float32"))})
    make = lambda rows: Dataset.from_dict({"image": cells, "label": rows}, features=features)  # noqa: E731
    split = ImageSplit("train", make(good), ImageOptions(), encoder(problem_type=problem_type))
    batch = Collator(split, PROCESSOR, (16, 16))(split.__getitems__([0, 1]))
    assert torch.equal(batch["labels"], torch.tensor(good, dtype=torch.float32))
    with pytest.raises(ValueError, match="The label .* in row [01] of the train split"):
        ImageSplit("train", make(bad), ImageOptions(), encoder(problem_type=problem_type))


def test_evaluation_pixels_are_the_processors():
    """Without augmentation a batch is exactly what the image processor makes."""
    data = image_dataset(5)
    split = ImageSplit("test", data, ImageOptions(), encoder())
    loader = make_loader(split, Collator(split, PROCESSOR, (16, 16)), StepPlan(2), train=False)
    batches = [batch for (batch,) in loader]
    expected = PROCESSOR([row["image"] for row in data], return_tensors="pt")["pixel_values"]
    assert torch.equal(torch.cat([b["pixel_values"] for b in batches]), expected)
    assert torch.cat([b["labels"] for b in batches]).tolist() == data["label"][:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_views_depend_on_seed_epoch_and_image_alone(num_workers):
    """Same view whatever the batch size, order or workers; another one in the next epoch."""
    split = ImageSplit("train", image_dataset(6), ImageOptions(), encoder())
    collator = Collator(split, PROCESSOR, (16, 16), Augmentation(), seed=3)

    def views(batch_size):
        loader = make_loader(split, collator, StepPlan(batch_size), train=False, num_workers=num_workers)
        return torch.cat([batch["pixel_values"] for (batch,) in loader])

    first = views(2)
    assert torch.equal(first, views(3))
    assert torch.equal(first[4:5], collator([split[4]])["pixel_values"])
    collator.epoch = 1
    assert not torch.equal(first, views(2))


def test_training_drops_the_last_incomplete_batch_only():
    """Full batches in training, unless there is no full one; every image in evaluation."""
    split = ImageSplit("train", image_dataset(5), ImageOptions(), encoder())
    collator = Collator(split, PROCESSOR, (16, 16))

    def sizes(size, train):
        loader = make_loader(split, collator, StepPlan(size, drop_last=train), train=train)
        return [len(batch["labels"]) for (batch,) in loader]

    assert sizes(2, True) == [2, 2]
    assert sizes(8, True) == [5]
    assert sizes(2, False) == [2, 2, 1]


def test_only_datasets_are_split():
    """A list of images is refused with a word on what to pass."""
    with pytest.raises(TypeError, match=r"pass a datasets\.Dataset"):
        open_split("train", iter([1, 2]), ImageOptions(), encoder())
    with pytest.raises(TypeError, match=r"no pair \(image, label\)"):
        open_split("train", [1, 2], ImageOptions(), encoder())
    with pytest.raises(ValueError, match="Did you mean 'skip'"):
        ImageOptions(unreadable="skp")
