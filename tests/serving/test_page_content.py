"""What the page shows of an image, without a page."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.contributions import contributions
from attentive_probes.analysis.figures.layer_explanations import explain_layers
from attentive_probes.serving.heads import load_served
from attentive_probes.serving.page_content import (
    answer,
    evidence_and_map,
    example_files,
    layers,
    picture_and_numbers,
    read_file,
    reads_patches,
    shared_passes,
)
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
HEADS = {
    "ep": HeadConfig("ep", {"num_queries": 4}),
    "alf": HeadConfig("alf", {"num_attention_heads": 4}, ("cls@all", "mean@all")),
    "simpool": HeadConfig("simpool"),
}


@pytest.fixture(scope="module")
def served(tiny_backbone, tmp_path_factory):
    """Three probes on one backbone, as the page has them."""
    folder = tmp_path_factory.mktemp("served")
    for name, head in HEADS.items():
        probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=LABELS)
        with torch.no_grad():
            for parameter in probe.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
        probe.save_pretrained(folder / name)
    return load_served([str(folder / name) for name in HEADS])


@pytest.fixture
def image(tmp_path):
    """An image file, wider than high."""
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_one_pass_for_all(served, image):
    """Each probe answers as it does alone; the backbone ran once."""
    (shared,) = shared_passes(served)
    calls = []
    handle = shared.backbone.register_forward_hook(lambda *_: calls.append(1))
    readings = read_file(image, [shared])
    handle.remove()
    assert len(calls) == 1 and list(readings) == list(HEADS)
    for name, probe in shared.probes.items():
        with Image.open(image) as opened:
            pixels = probe.image_processor([opened], return_tensors="pt")["pixel_values"]
        expected = probe(pixels).logits.softmax(-1)[0].tolist()
        found = answer(probe, readings[name])
        assert found == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)


def test_evidence_follows_the_class_and_the_map_the_query(served, image):
    """Other classes have other evidence; queries come in the order of what they added; past the last is the last."""
    probe = served["ep"].probes["ep"]
    reading = read_file(image, shared_passes(served))["ep"]
    pictures = {label: evidence_and_map(probe, reading, label, 1) for label in LABELS}
    assert len({picture.tobytes() for picture, _, _ in pictures.values()}) == 3
    assert pictures["band 0"][0].size == (270, 180)  # enlarged by a whole number
    found = contributions(probe.head, reading.sequence, torch.tensor([1])).values[0].sum(-1)
    for place, query in enumerate(found.argsort(descending=True).tolist()):
        words = evidence_and_map(probe, reading, "band 1", place + 1)[2]
        assert f"query {query + 1} looks" in words and f"added to the logit {found[query]:+.2f}" in words
    assert evidence_and_map(probe, reading, "band 1", 99)[2] == words
    other = served["simpool"].probes["simpool"]
    reading = read_file(image, shared_passes(served))["simpool"]
    assert "gradient x input" in evidence_and_map(other, reading, None, 1)[2]


def test_layers(served, image, tmp_path):
    """What layers added, and the constant, is the logit of the chosen class; picture and numbers can be kept."""
    probe = served["alf"].probes["alf"]
    reading = read_file(image, shared_passes(served))["alf"]
    assert not reads_patches(probe) and reads_patches(served["ep"].probes["ep"])
    explanation = explain_layers(probe, reading.sequence, 2)
    logits = probe.head(reading.sequence).logits[0]
    assert explanation.is_exact and float(explanation.evidence.sum()) + explanation.constant == pytest.approx(
        logits[2].item(), rel=1e-4
    )
    assert float(explanation.attention.sum()) == pytest.approx(1, abs=1e-5)
    assert layers(probe, reading, None).width > 300
    picture, numbers = picture_and_numbers("alf", probe, reading, "band 2", tmp_path)
    rows = list(csv.DictReader(numbers.read_text().splitlines()))
    assert [row["tap"] for row in rows] == [tap for tap in explanation.taps for _ in explanation.kinds] + ["constant"]
    assert sum(float(row["added"]) for row in rows) == pytest.approx(logits[2].item(), rel=1e-3)
    with Image.open(picture) as shown:
        assert shown.format == "PNG"
    _, numbers = picture_and_numbers("ep", served["ep"].probes["ep"], read_file(image, shared_passes(served))["ep"],
                                     None, tmp_path)  # fmt: skip
    assert len(numbers.read_text().splitlines()) == 5


def test_what_is_no_image(served, tmp_path):
    """A sentence names it."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear page")
    with pytest.raises(ValueError, match=r"that was given cannot be read .*; send another one"):
        read_file(str(path), shared_passes(served))


def test_examples_come_from_all_over(tmp_path):
    """The first, the last and some between; all of a small set."""
    paths = example_files(image_dataset(9), "image", 3, tmp_path)
    assert [path.name for path in paths] == ["example-0.png", "example-4.png", "example-8.png"]
    assert len(example_files(image_dataset(2), "image", 3, tmp_path)) == 2
