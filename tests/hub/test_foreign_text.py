"""Class names, file names and folders from elsewhere are text in cards, tables and spreadsheets; push is choosy."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.evaluation.prediction import Prediction
from attentive_probes.evaluation.predictions.prediction_files import as_cell, write_predictions
from attentive_probes.hub.markdown import code, one_line, plain
from attentive_probes.hub.model_card import model_card
from attentive_probes.probe.files.card import merged_card
from attentive_probes.probe.files.upload import push_folder
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.notes import empty_results

NASTY = [
    "<img src=x onerror=alert(1)>", "[click](http://evil.example)", "a\nb", "a | b", "`x`", "\x1b[31mred", "**bold**",
    "=HYPERLINK(1)", "www.evil.example", "\u202etxt", "$x$", "# head", "&lt;b&gt;", "~~~", "a\r\n\r\n# b", "![x](y)",
]  # fmt: skip


def test_text_in_markdown():
    """One line, no tag, no link, no code, no control."""
    for text in NASTY:
        for written in (plain(text), code(text)):
            assert "\n" not in written and "\r" not in written and "\x1b" not in written and "\u202e" not in written
        assert "<" not in plain(text) and "](" not in plain(text).replace("\\](", "")
        assert code(text)[0] == code(text)[-1] == "`" and "`" not in code(text)[1:-1]
    assert plain("a | b") == "a \\| b" and plain("<b>") == "&lt;b&gt;" and plain("T-shirt/top") == "T-shirt/top"
    assert one_line("a\tb\n c") == "a b c"


def test_a_card_of_nasty_classes(tiny_backbone):
    """Every class is one row of the table, and nothing of it is markup; metadata stay valid."""
    runs = {"mean": HeadRun(HeadConfig("mean"))}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=NASTY)
    results = empty_results(sweep, ProbeTrainingArguments("out"), 1)
    results.dataset = {"name": "<script>`|\n# x", "on_hub": False}
    results.backbone["name"] = "../`<b>|\nx"
    head = results.heads[0]
    head.test, results.data = {"top1": 50.0, "per_class": [50.0] * len(NASTY)}, {"train": {"images": 10}}
    card = model_card(results, "mean", sweep.probe("mean").config)
    body = card.split("## Per class")[1].split("## Cite")[0]
    rows = [line for line in body.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == 1 + len(NASTY) and all(row.endswith("| 50.0 |") for row in rows[1:])
    assert "<img" not in card and "\x1b" not in card and "(http" not in card.split("## Cite")[0].replace("\\](http", "")
    assert yaml.safe_load(card.split("---\n")[1])["model-index"]


def test_cards_that_nest_too_deeply():
    """What YAML cannot read or write again is text."""
    ours = "---\nlicense: mit\n---\n# ours\n"
    for front in ("x: " + "[" * 3000, "x: " + "[" * 400 + "]" * 400, "x: !!python/object:os.system {}"):
        merged = merged_card(f"---\n{front}\n---\n# theirs\n", ours)
        assert "# theirs" in merged and "# ours" in merged


def test_cells_are_no_formulas(tmp_path):
    """What a spreadsheet would run gets a quote; numbers stay numbers."""
    texts = ["=1+1", "+A1", "-x", "@sum", "\t=1", "\r=1", "plain", "-5", "+1e3", "a=b"]
    assert [as_cell(text) for text in texts] == [
        "'=1+1", "'+A1", "'-x", "'@sum", "'\t=1", "'\r=1", "plain", "-5", "+1e3", "a=b",
    ]  # fmt: skip
    rows = [
        Prediction("=HYPERLINK(1).png", ("=cmd|x", "dog"), (0.7, 0.3)),
        Prediction("-1.png", ("-1", "@x"), (1.0, 0.0)),
    ]
    files = [Path(row.path) for row in rows]
    write_predictions(lambda _: iter(rows), files, tmp_path / "p.csv", 2)
    with (tmp_path / "p.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell not in ("", "-1")]
    write_predictions(lambda _: iter(rows), files, tmp_path / "p.json", 2)
    assert "=cmd|x" in (tmp_path / "p.json").read_text()


@pytest.fixture
def saved(tiny_backbone, tmp_path):
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=["a", "b"])
    probe.files = {"README.md": "# x\n", "results.json": "{}", ".eval_results/attentive-probes.yaml": "[]\n"}
    probe.save_pretrained(tmp_path / "probe")
    return tmp_path / "probe"


def test_push_uploads_what_we_wrote(saved, hub, caplog):
    """No hidden files, no notes, no links, in folders neither; the log says what is left out."""
    (saved / ".env").write_text("TOKEN=secret")
    (saved / "notes.txt").write_text("secret")
    (saved / "private").mkdir()
    (saved / "private" / "id_rsa").write_text("secret")
    (saved / ".git").mkdir()
    (saved / ".git" / "config").write_text("secret")
    outside = saved.parent / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("secret")
    (saved / "linked.txt").symlink_to(outside / "config.json")
    (saved / "lora").symlink_to(outside)
    push_folder(saved, "me/mine")
    files = {path: content for path, content in hub.files("me/mine").items() if path != ".gitattributes"}
    assert set(files) == {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "results.json",
        ".eval_results/attentive-probes.yaml",
    }  # fmt: skip
    assert not any(b"secret" in content for content in files.values())
    assert "notes.txt" in caplog.text and ".env" in caplog.text and "linked.txt" in caplog.text


def test_links_in_the_place_of_our_files_are_refused(saved, hub):
    """They could lead to any file of the user."""
    (saved / "README.md").unlink()
    (saved / "README.md").symlink_to(saved.parent / "x")
    (saved.parent / "x").write_text("secret")
    with pytest.raises(ValueError, match=r"README\.md is a link"):
        push_folder(saved, "me/mine")
    assert not hub.repositories


def test_a_self_contained_push_takes_no_more(saved, hub):
    """The same where the probe is loaded and saved on the way."""
    from attentive_probes.probe.files.saving import extra_files

    (saved / ".env").write_text("TOKEN=secret")
    assert set(extra_files(saved)) == {"README.md", "results.json", ".eval_results/attentive-probes.yaml"}
    assert torch.is_tensor(ProbeForImageClassification.from_pretrained(saved).head.classifier.weight)
