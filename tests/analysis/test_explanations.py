"""Images as a probe sees them: predictions, maps on one scale, what each query added."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.explanations import explain
from attentive_probes.analysis.figures.explanation_figure import explanation_figure, write_explanations
from attentive_probes.cli.main import commands
from tiny import image_dataset

LABELS = ["band 0", "band 1", "=band 2"]


def make_probe(folder, pooling="ep", tokens=("cls", "patches")):
    options = {"num_queries": 4} if pooling == "ep" else {"num_attention_heads": 4}
    torch.manual_seed(0)
    return ProbeForImageClassification.from_backbone(folder, HeadConfig(pooling, options, tokens), labels=LABELS).eval()


def images(count=3, size=(40, 28)):
    return [row["image"].resize(size) for row in image_dataset(count)]


def test_looks_are_those_of_the_probe(tiny_backbone):
    """Answers are the probe's; maps are its attention, times uniform; queries are ranked by what they added."""
    probe = make_probe(tiny_backbone("vit"))
    explanations = explain(probe, images(), ["band 0", None, "band 1"], top_k=2)
    pixels = probe.image_processor(images(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = probe(pixels)
    scores = output.logits.softmax(-1)
    for place, explanation in enumerate(explanations):
        assert explanation.predictions[0] == (
            LABELS[int(scores[place].argmax())],
            pytest.approx(float(scores[place].max())),
        )
        assert (
            len(explanation.predictions) == 2
            and explanation.image.size == (40, 28)
            and explanation.maps.shape == (4, 28, 40)
        )
        uniform = output.attention[place, :, 1:].sum(1) / 1  # of 16 patches, the mean is their share of the attention
        assert torch.allclose(explanation.maps.nanmean((1, 2)), uniform, atol=0.05)
        assert explanation.is_exact and explanation.added[explanation.order[0]] == explanation.added.max()
    assert [explanation.label for explanation in explanations] == ["band 0", None, "band 1"]
    assert torch.equal(explanations[0].groups, explanations[1].groups)
    with pytest.raises(ValueError, match="no image"):
        explain(probe, [])


def test_heads_that_are_not_linear(tiny_backbone):
    """They are drawn as well, by another name."""
    (explanation,) = explain(make_probe(tiny_backbone("vit"), "siglip"), images(1))
    assert not explanation.is_exact and len(explanation.added) == 1 and explanation.order == [0, 1, 2, 3]


def test_a_spot_is_drawn_where_it_is(tiny_backbone):
    """Attention on one patch of the grid is a spot at its place in the image, also in one that is not square."""
    probe = make_probe(tiny_backbone("vit"), tokens=("patches",))
    attention = torch.full((4, 16), 1e-6)
    attention[:, 1 * 4 + 2] = 1
    probe.head.forward = lambda sequence: type(probe.head).forward(probe.head, sequence)
    original = probe.head.pooling.queries

    def queries(statistics):
        found = original(statistics)
        return found._replace(vectors=torch.zeros_like(found.vectors), logit_bias=attention.log())

    probe.head.pooling.queries = queries
    (explanation,) = explain(probe, images(1, size=(80, 40)))
    row, column = np.unravel_index(int(explanation.maps[0].nan_to_num().argmax()), explanation.maps[0].shape)
    assert abs(row - 15) <= 2 and abs(column - 50) <= 3


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_pictures_and_numbers(ending, tiny_backbone, tmp_path):
    """Both are written; no cell is a formula."""
    pytest.importorskip("matplotlib")
    explanations = explain(make_probe(tiny_backbone("vit")), images(), ["=band 2", None, "band 1"])
    explanation_figure(explanations, tmp_path / f"looks{ending}", max_maps=2)
    assert (tmp_path / f"looks{ending}").stat().st_size > 5000
    write_explanations(explanations, ["=a.png", "b.png", "c.png"], tmp_path / "looks.csv")
    with (tmp_path / "looks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["image"] == "'=a.png" and rows[0]["label"] == "'=band 2"
    assert sorted(int(row["rank"]) for row in rows[:4]) == [1, 2, 3, 4]
    assert all(0 < float(row["entropy"]) <= math.log(16) + 1e-4 for row in rows)  # over 16 patches, not over pixels
    with pytest.raises(ValueError, match="no image"):
        explanation_figure([], tmp_path / "none.png")


def test_names_are_text_in_pictures(tiny_backbone, tmp_path):
    """What matplotlib would read as a formula, or cannot, is drawn as it is."""
    pytest.importorskip("matplotlib")
    names = ["$\\frac{", "a$b", "two\nlines"]
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4}), labels=names
    )
    explanation_figure(explain(probe.eval(), images(2), ["$x_$", "a$b"]), tmp_path / "looks.svg")
    assert (tmp_path / "looks.svg").stat().st_size > 5000


def test_the_command(tiny_backbone, tmp_path):
    """Files in folders named like classes have labels; picture and numbers lie side by side."""
    pytest.importorskip("matplotlib")
    make_probe(tiny_backbone("vit")).save_pretrained(tmp_path / "probe")
    (tmp_path / "photos" / "band 1").mkdir(parents=True)
    Image.new("RGB", (30, 50), "red").save(tmp_path / "photos" / "band 1" / "x.png")
    Image.new("RGB", (30, 50), "red").save(tmp_path / "photos" / "y.png")
    arguments = ["attention", str(tmp_path / "probe"), str(tmp_path / "photos"), "--output", str(tmp_path / "a.svg")]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    with (tmp_path / "a.csv").open(newline="") as file:
        assert {(row["image"][-5:], row["label"]) for row in csv.DictReader(file)} == {
            ("x.png", "band 1"),
            ("y.png", ""),
        }
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
