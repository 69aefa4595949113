"""The report of a run: one file, right numbers, nothing from elsewhere that runs."""

import json
import re
from html.parser import HTMLParser

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from attentive_probes.analysis import report
from attentive_probes.analysis.figures import drawing
from attentive_probes.analysis.figures.report_figures import pareto, shown_colours
from attentive_probes.analysis.report import write_report
from attentive_probes.cli.main import commands
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult, ReferenceResult

EVIL = "<script>alert(1)</script>"


def results_of(count=2, name="ep", **changes):
    """A run of some heads whose numbers can be found again."""
    heads = [
        HeadResult(
            f"{name}{i}",
            {"pooling": "ep", "options": {"num_queries": 8}, "tokens": ["patches"]},
            0.1,
            0.0,
            1000 * (i + 1),
            best_epoch=2,
            seconds=10.0 + i,
            validation={"top1": 70.0 + i % 20, "loss": 1.0},
            validation_interval=[60.0, 80.0],
            history=[{"epoch": e, "train_loss": 2.0 / e, "top1": 60.0 + e} for e in (1, 2)],
            test={
                "top1": 61.25 + i % 20, "top1_interval": [55.0, 66.5], "top1_difference": [-1.5, -2.5, -0.5],
                "top1_p_holm": 0.0123, "per_class": [75.0, None, 20.0], "ece": 3.21, "loss": 1.0,
                "confusion": [[6, 0, 2], [0, 0, 0], [8, 0, 2]], "reliability": [[4, 50.0, 45.0], [14, 70.0, 90.0]],
            },
        )
        for i in range(count)
    ]  # fmt: skip
    settings = {"num_train_epochs": 2, "batch_size": 64, "optimizer": "adamw", "seed": 0}
    backbone = {"name": "tiny/vit", "revision": "abc", "dtype": "float32"}
    data = {"train": {"images": 100}, "test": {"images": 18, "unreadable": 3}}
    options = {"baseline": f"{name}0", "seconds": 12.0, "warnings": ["The validation split is small."], **changes}
    return SweepResults(heads, "top1", backbone, settings, data, **options)


def write(folder, results):
    """A folder with the results of a run and the history of its heads."""
    folder.mkdir(exist_ok=True)
    results.save(folder / "results.json")
    rows = [json.dumps({"head": head.name, **row}) for head in results.heads for row in head.history]
    (folder / "history.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return write_report(folder).read_text()


class Checker(HTMLParser):
    """Which tags there are, which addresses they have, and that all are closed in order."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        """Note a tag."""
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Close a tag."""
        assert self.open.pop() == tag, tag


def checked(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def test_what_it_says(tmp_path):
    """The selected head, its numbers with intervals, the worst class first and what it was taken for, the command."""
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("backbone: {name: tiny/vit}")
    results = results_of()
    results.references = [ReferenceResult("knn", {"method": "knn", "tokens": ["cls"]}, {"k": 5.0}, 55.5, {"top1": 50})]
    text = write(folder, results)
    words = " ".join(re.sub("<[^>]*>", " ", text).split())
    assert "selected head is ep1 : test top1 62.25 [55.00, 66.50], -1.50 [-2.50, -0.50] against ep0" in words
    assert "ep1 * ep num_queries=8 patches 2,000 0.1 2 71.00 62.25 [55.00, 66.50]" in words
    assert "knn knn cls 55.50 50.00" in words and "0.012" in words
    assert "class 2 20.0 10 class 0 (8) class 0 75.0 8 class 2 (2) class 1 no image 0" in words
    assert "The validation split is small." in words and "3 left out as unreadable" in words
    assert f"attentive-probes train &#39;{folder}/recipe.yaml&#39; train.output_dir=outputs/again" in text
    assert "backbone: {name: tiny/vit}" in text and "3.21 points" in text


def test_it_needs_nothing_else(tmp_path, monkeypatch):
    """Pictures are inside; no script, no address; well-formed; and small, also with many heads."""
    monkeypatch.setattr(report, "MAX_ROWS", 60)
    found = checked(write(tmp_path / "run", results_of()))
    assert found.tags.count("img") == 4 and "script" not in found.tags and "link" not in found.tags
    assert all(source.startswith("data:image/") for source in found.sources)
    many = write(tmp_path / "many", results_of(80))
    assert len(many.encode()) < 5_000_000 and "20 more are in results.json" in many
    assert set(list(shown_colours(results_of(80)).values())) >= {"0.75"}


def test_nothing_of_a_stranger_runs(tmp_path):
    """Names, warnings and recipes are text, whatever is in them."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"# {EVIL}</pre>")
    results = results_of(name=EVIL, warnings=[EVIL])
    results.backbone["name"] = results.dataset["name"] = results.hardware = EVIL
    results.heads[0].head["options"] = {EVIL: EVIL}
    text = write(folder, results)
    assert EVIL not in text and "script" not in checked(text).tags
    assert text.count("&lt;script&gt;") > 10


def test_pictures_of_the_folder(tmp_path):
    """Pictures that lie there are shown, no wider than a page; a file that is none is named."""
    from PIL import Image

    write(tmp_path / "run", results_of())
    Image.new("RGB", (4000, 1000), "red").save(tmp_path / "run" / "attention.png")
    found = checked(write_report(tmp_path / "run").read_text())
    assert found.tags.count("img") == 5
    (tmp_path / "run" / "attention.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"attention\.png"):
        write_report(tmp_path / "run")


def test_without_matplotlib(tmp_path, monkeypatch):
    """All but the pictures is there, and how to get these."""
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    text = write(tmp_path / "run", results_of())
    assert "attentive-probes[plots]" in text and "img" not in checked(text).tags


def test_what_is_no_run(tmp_path):
    """A folder without results, or with damaged ones, is refused by name; the command says the same."""
    with pytest.raises(ValueError, match="holds no results.json"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results\.json"):
        write_report(tmp_path)
    write(tmp_path / "run", results_of(1))
    target = tmp_path / "elsewhere.html"
    done = CliRunner().invoke(commands, ["report", str(tmp_path / "run"), "--output", str(target)])
    assert done.exit_code == 0 and target.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confusion", [[1], [2, 3]]), ("confusion", [["a"]]), ("confusion", [[{}, {}], [1, 2]]), ("confusion", [1]),
        ("per_class", ["x", "y", "z"]), ("per_class", [[1]]), ("reliability", [[1, 2]]), ("reliability", ["abc"]),
    ],
)  # fmt: skip
def test_lists_of_strangers(tmp_path, name, value):
    """What the lists from elsewhere hold is drawn, or refused with the name of the file; nothing else."""
    results = results_of(1)
    results.heads[0].test[name] = value
    try:
        write(tmp_path / "run", results)
    except ValueError as error:
        assert "results.json" in str(error)


def test_other_problems_and_broken_heads(tmp_path):
    """Runs without classes, without a test split, and with heads that diverged are reported as they are."""
    results = results_of(3)
    for head in results.heads:
        head.test = {"mean_absolute_error": 1.5, "r2": 0.3, "mean_absolute_error_interval": [1.0, 2.0]}
    results.heads[2].validation, results.heads[2].best_epoch, results.heads[2].test = {}, 0, None
    results.heads[2].history = [{"epoch": 1, "train_loss": None, "top1": None}]
    text = write(tmp_path / "regression", results)
    assert "test mean_absolute_error" in text and "1.50 [1.00, 2.00]" in text and "diverged" in text
    results = results_of(2, baseline=None)
    for head in results.heads:
        head.test = None
    text = write(tmp_path / "untested", results)
    assert "validation top1 71.00" in text and "was not scored" in text
    selected = "SELECTED ON THE TEST SPLIT, by an explicit override"
    assert f'class="warning">{selected}' in write(tmp_path / "override", results_of(protocol=selected))


def test_costs(tmp_path, tiny_backbone):
    """Megabytes of the weights, and multiply-adds of the pooling as it is configured."""
    import torch

    from attentive_probes import HeadConfig, ProbeForImageClassification

    head = HeadConfig("ep", {"num_queries": 4})
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=["a", "b", "c"])
    folder = tmp_path / "run" / "probes" / "ep0"
    probe.save_pretrained(folder)
    save_file({"x": torch.zeros(500_000)}, folder / "model.safetensors")
    text = write(tmp_path / "run", results_of(1))
    counts = probe.head.pooling.multiply_adds()
    assert f"<td>{counts.textbook:,}</td><td>{counts.folded:,}</td><td>2.00</td>" in text
    assert ">c</td><td>20.0" in text


def test_front():
    """Only what is better than all that is cheaper; the smaller the better, where that is so."""
    points = [(1, 5.0), (2, 4.0), (2, 7.0), (3, 7.0), (4, 9.0)]
    assert pareto(points) == [(1, 5.0), (2, 7.0), (4, 9.0)]
    assert pareto(points, smaller_is_better=True) == [(1, 5.0), (2, 4.0)]
