"""Streams are read as held data are: the same labels, checks and views; mixed for training where files are sorted."""

import logging
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from transformers import ViTImageProcessorPil

from attentive_probes.data.batches import Collator, make_loader
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_split
from attentive_probes.data.open_split import open_split
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.steps import StepPlan
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.training.steps.losses import total_weight
from colours import class_folders, perfect_probe, png, table

ENCODER = LabelEncoder(LabelTable(("a", "b", "c")), "single_label_classification")
PROCESSOR = ViTImageProcessorPil(size={"height": 8, "width": 8})


def test_classes_in_another_order_and_subset():
    """A stream with its classes in another order scores as the held split; an unknown class is refused in both."""
    probe = perfect_probe(LabelTable(("a", "b", "c")), {0: 0, 1: 1, 2: 2})
    for names, kinds in ((["c", "a"], [2, 0, 2]), (["b"], [1, 1]), (["A", "b"], None)):
        labels = [i % len(names) for i in range(len(kinds or [0, 1]))]
        data = table(kinds or [0, 1], labels, ClassLabel(names=names))
        for dataset in (data, data.to_iterable_dataset()):
            if kinds is None:
                with pytest.raises(ValueError, match="no class 'A'. Did you mean 'a'"):
                    evaluate_probe(probe, dataset)
            else:
                assert evaluate_probe(probe, dataset)["top1"] == 100


def sorted_folders(root, count=64):
    return class_folders(root, {f"train/{name}": [i] * count for i, name in enumerate("abc")})


def test_training_streams_are_mixed(tmp_path, caplog):
    """Class folders arrive mixed, in another order each epoch, the same for equal seeds; other splits keep theirs."""
    root = sorted_folders(tmp_path)

    def labels(shuffle, epoch=0, options=ImageOptions()):  # noqa: B008 (never changed)
        stream = open_split("train", load_split(str(root), "train", streaming=True), options, ENCODER, shuffle=shuffle)
        stream.set_epoch(epoch)
        return [example.label for example in stream]

    with caplog.at_level(logging.WARNING):
        first = labels((1000, 0))
        assert Counter(first[:48]).most_common()[-1][1] >= 8
        assert first == labels((1000, 0)) and sorted(first) == labels(None)
        assert first != labels((1000, 0), epoch=1) and first != labels((1000, 1))
        assert not caplog.records
        assert labels((0, 0)) == sorted(first)
    assert "arrives sorted by label" in caplog.text and "Raise data.shuffle_buffer" in caplog.text


def views(split, num_workers=0, seed=3):
    collator = Collator(split, PROCESSOR, (8, 8), Augmentation(), seed=seed)
    loader = make_loader(split, collator, StepPlan(4), train=False, num_workers=num_workers)
    batches = [batch for (batch,) in loader]
    labels = torch.cat([batch["labels"] for batch in batches])
    return {
        int(label): pixels
        for label, pixels in zip(labels, torch.cat([b["pixel_values"] for b in batches]), strict=True)
    }


def test_the_view_of_an_image_is_its_own(tmp_path):
    """Whatever the order of the stream, the buffer or the workers, an image is seen in the same view."""
    rng = np.random.default_rng(0)
    cells = [{"bytes": _noise(rng), "path": None} for _ in range(12)]
    features = Features({"image": Image(), "label": Value("int64")})
    encoder = LabelEncoder(LabelTable.numbered(12), "single_label_classification")
    stream = Dataset.from_dict({"image": cells, "label": range(12)}, features=features).to_iterable_dataset(
        num_shards=4
    )
    plain = views(open_split("train", stream, ImageOptions(), encoder))
    for shuffle, num_workers in (((5, 0), 0), ((100, 7), 0), (None, 2), ((100, 1), 2)):
        other = views(open_split("train", stream, ImageOptions(), encoder, shuffle=shuffle), num_workers)
        assert all(torch.equal(plain[label], other[label]) for label in range(12)), (shuffle, num_workers)


def _noise(rng):
    import io

    from PIL import Image as PILImage

    file = io.BytesIO()
    PILImage.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def with_broken_images(count=12, broken=(1, 4, 5)):
    cells = [{"bytes": png(i % 3)[: 30 if i in broken else None], "path": None} for i in range(count)]
    features = Features({"image": Image(), "label": Value("int64")})
    return Dataset.from_dict({"image": cells, "label": [i % 3 for i in range(count)]}, features=features)


def test_broken_images_met_on_the_way():
    """Without a check beforehand: batches go without them, and they are counted."""
    options = ImageOptions(unreadable="skip", check=False)
    split = open_split("train", with_broken_images(), options, ENCODER)
    assert (len(split), split.num_unreadable) == (12, 0)
    collator = Collator(split, PROCESSOR, (8, 8))
    batch = collator(split.__getitems__([0, 1, 2, 4]))
    assert batch["labels"].tolist() == [0, 2] and split.num_unreadable == 2
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    nothing = collator(split.__getitems__([4, 5]))
    assert nothing["pixel_values"].shape == (0, 3, 8, 8) and nothing["labels"].dtype == torch.long
    with pytest.raises(ValueError, match="None of the images of a training batch can be read"):
        total_weight([nothing["labels"]])
    probe = perfect_probe(LabelTable.numbered(3), {0: 0, 1: 1, 2: 2})
    metrics = evaluate_probe(probe, with_broken_images(), options, batch_size=5)
    assert (metrics["images"], metrics["unreadable"], metrics["top1"]) == (9, 3, 100)
    streamed = evaluate_probe(probe, with_broken_images().to_iterable_dataset(), options, batch_size=5)
    assert (streamed["images"], streamed["top1"]) == (9, 100)
    with pytest.raises(ValueError, match="The image in row 1 cannot be read"):
        evaluate_probe(probe, with_broken_images(), ImageOptions(check=False))


def test_splits_without_an_image():
    """An empty split, and one of which no image can be read, are refused by name."""
    probe = perfect_probe(LabelTable.numbered(3), {0: 0, 1: 1, 2: 2})
    with pytest.raises(ValueError, match="The evaluation split holds no images"):
        evaluate_probe(probe, with_broken_images().select([]))
    broken = with_broken_images(3, broken=(0, 1, 2))
    with pytest.raises(ValueError, match="holds no images that can be read"):
        evaluate_probe(probe, broken, ImageOptions(unreadable="skip"))
    with pytest.raises(ValueError, match="no image to evaluate on"):
        evaluate_probe(probe, broken, ImageOptions(unreadable="skip", check=False))
