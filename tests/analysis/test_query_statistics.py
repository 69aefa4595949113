"""What queries do over a data set: their overlap, their accuracy, and what is lost without one."""

import csv

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.figures.query_figure import query_figure, write_queries
from attentive_probes.analysis.measures.query_statistics import look_and_drop, study_queries
from attentive_probes.cli.main import commands
from tiny import image_dataset

LABELS = [f"band {i}" for i in range(3)]


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def probes_of(source, counts=(1, 2, 4), pooling="ep"):
    """Probes of several sizes on one backbone."""
    options = {count: {"num_queries": count} if pooling == "ep" else {} for count in counts}
    first = ProbeForImageClassification.from_backbone(source, HeadConfig(pooling, options[counts[0]]), labels=LABELS)
    found = {f"{pooling}{counts[0]}": first}
    for count in counts[1:]:
        probe = ProbeForImageClassification.from_backbone(source, HeadConfig(pooling, options[count]), labels=LABELS)
        probe.backbone = first.backbone
        found[f"{pooling}{count}"] = probe
    for probe in found.values():
        with torch.no_grad():
            for parameter in probe.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return found


@pytest.mark.parametrize(
    ("pooling", "options"),
    [
        ("ep", {"num_queries": 4}),
        ("aim", {"num_attention_heads": 4}),
        ("cae", {"num_attention_heads": 4}),
        ("abmilp", {}),
        ("jepa", {"num_attention_heads": 4}),
        ("siglip", {"num_attention_heads": 4}),
    ],
)
def test_a_dropped_query_pools_the_mean(tiny_backbone, pooling, options):
    """Without a query means: with its map uniform, all others as they were."""
    head = HeadConfig(pooling, options)
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=LABELS).eval()
    with torch.no_grad():
        for parameter in probe.head.pooling.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    if not probe.head.pooling.folds:
        pytest.fail(f"{pooling} is here because it folds")
    sequence = torch.randn(5, 16, 32)
    output, others = look_and_drop(probe.head, sequence)
    assert torch.allclose(output.logits, probe.head(sequence).logits)
    assert others.shape == (5, output.attention.shape[1], 3)
    assert (others - output.logits[:, None]).abs().amax((0, 2)).min() > 1e-7


def test_dropping_by_hand(tiny_backbone):
    """Slice q of the features of EP is then that of the average token."""
    probe = probes_of(tiny_backbone("vit"), (4,))["ep4"].eval()
    sequence = torch.randn(5, 16, 32)
    _, others = look_and_drop(probe.head, sequence)
    mean = probe.head.pooling.value(sequence.mean(1)).view(5, 4, 8)
    for query in range(4):
        features = probe.head.pooling(sequence).features.view(5, 4, 8).clone()
        features[:, query] = mean[:, query]
        logits = probe.head.classifier(probe.head.norm(features.flatten(1)))
        assert torch.allclose(others[:, query], logits, atol=1e-4)


def test_a_uniform_query_is_worth_nothing(tiny_backbone):
    """A query of zeros looks everywhere alike: dead, and nothing changes without it."""
    probes = probes_of(tiny_backbone("vit"), (4,))
    with torch.no_grad():
        probes["ep4"].head.pooling.query[2] = 0
    study = study_queries(probes, image_dataset(12), drop=True, batch_size=5)["ep4"]
    assert study.complementarity.dead == [2] and study.complementarity.num_images == 12
    assert study.dropped[2]["top1_difference"][0] == 0 and study.dropped[2]["top1_p_holm"] == 1
    assert len(study.dropped) == study.num_queries == 4


def test_several_probes_in_one_pass(tiny_backbone, tmp_path):
    """Probes on one backbone give what each gives alone; the picture and the numbers have all of them."""
    probes = probes_of(tiny_backbone("vit"))
    calls = []
    backbone = probes["ep1"].backbone
    handle = backbone.register_forward_hook(lambda *_: calls.append(1))
    studies = study_queries(probes, image_dataset(12), batch_size=6)
    handle.remove()
    assert len(calls) == 2
    alone = study_queries({"ep4": probes["ep4"]}, image_dataset(12), batch_size=12)["ep4"]
    assert torch.allclose(alone.complementarity.cosine, studies["ep4"].complementarity.cosine, atol=1e-6)
    assert alone.test["top1"] == studies["ep4"].test["top1"] and studies["ep1"].dropped == []
    query_figure(studies, tmp_path / "all.png")
    query_figure({"ep4": alone}, tmp_path / "one.svg")
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.size == (1080, 360)
    write_queries(studies, tmp_path / "all.csv")
    rows = read(tmp_path / "all.csv")
    assert [(row["probe"], row["query"]) for row in rows] == [
        ("ep1", "1"), ("ep2", "1"), ("ep2", "2"), *(("ep4", str(i)) for i in (1, 2, 3, 4)),
    ]  # fmt: skip
    assert float(rows[-1]["value"]) == pytest.approx(alone.test["top1"], rel=1e-5) and rows[-1]["difference"] == ""


def test_what_has_no_queries(tiny_backbone):
    """Heads without patches, or whose pooling has no queries to leave out, are refused by name."""
    source = tiny_backbone("vit")
    cls = ProbeForImageClassification.from_backbone(source, HeadConfig("mean", tokens=("cls",)), labels=LABELS)
    with pytest.raises(ValueError, match="'it' reads no patches"):
        study_queries({"it": cls}, image_dataset(4))
    other = ProbeForImageClassification.from_backbone(source, HeadConfig("simpool"), labels=LABELS)
    with pytest.raises(ValueError, match="'it' has no queries"):
        study_queries({"it": other}, image_dataset(4), drop=True)
    assert study_queries({"it": other}, image_dataset(4))["it"].num_queries >= 1
    with pytest.raises(ValueError, match="several backbones"):
        study_queries(probes_of(source, (1,)) | probes_of(tiny_backbone("dinov2"), (2,)), image_dataset(4))


def test_the_commands(tiny_backbone, tmp_path):
    """A picture and its numbers, from stored probes and a folder; queries can be dropped; layers go by class."""
    for name, probe in probes_of(tiny_backbone("vit"), (2, 4)).items():
        probe.save_pretrained(tmp_path / name)
    (tmp_path / "data").mkdir()
    image_dataset(12).to_parquet(tmp_path / "data" / "test.parquet")
    data = ["--data", str(tmp_path / "data")]
    names = [str(tmp_path / name) for name in ("ep2", "ep4")]
    done = CliRunner().invoke(
        commands, ["complementarity", *names, *data, "--drop", "--output", str(tmp_path / "q.png")]
    )
    assert done.exit_code == 0, done.output
    rows = read(tmp_path / "q.csv")
    assert len(rows) == 6 and all(row["difference"] for row in rows)
    done = CliRunner().invoke(
        commands, ["layers", *names, *data, "--by-class", "--output", str(tmp_path / "layers.svg")]
    )
    assert done.exit_code == 0, done.output
    rows = read(tmp_path / "layers.csv")
    assert len(rows) == 2 * 4 and {row["class"] for row in rows} == {"", *LABELS}
    assert "band 1" in (tmp_path / "layers.svg").read_text()
    both = [*data, *data]  # one data set per probe
    done = CliRunner().invoke(commands, ["layers", *names, *both, "--output", str(tmp_path / "both.png")])
    assert done.exit_code == 0 and len(read(tmp_path / "both.csv")) == 2
    twice = CliRunner().invoke(commands, ["layers", *names, *data, *data, *data])
    assert isinstance(twice.exception, ValueError) and "--data is there 3 times" in str(twice.exception)
