"""Predictions and embeddings as files: written as they come, gone on with, and read by others."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from attentive_probes import ProbeForImageClassification
from attentive_probes.data.load import load_split
from attentive_probes.evaluation import prediction
from attentive_probes.evaluation.prediction import find_images, predict_files
from attentive_probes.evaluation.predictions.prediction_files import read_list
from tiny import image_dataset


@pytest.fixture
def photos(tmp_path):
    """Seven images and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, row in enumerate(image_dataset(7)):
        row["image"].save(folder / f"{i}.png")
    (folder / "3-broken.png").write_bytes(b"none")
    return folder


def test_every_file_has_a_row(run, probe_folder, photos, tmp_path):
    """In CSV, JSON Lines, JSON and Parquet alike, in order, with the reason where there is no answer."""
    for name in ("p.csv", "p.jsonl", "p.json", "p.parquet"):
        code, out, _ = run("predict", probe_folder, photos, "--output", tmp_path / name, "--top-k", 2)
        assert (code, out.split()[:3]) == (0, ["8", "of", "8"])
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines == json.loads((tmp_path / "p.json").read_text())
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["labels"] for row in table] == [line["labels"] for line in lines]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    assert [row["path"].rpartition("/")[2] for row in rows][3:5] == ["3-broken.png", "3.png"]
    assert "cannot be read" in rows[3]["status"] and rows[3]["label_1"] == "" and rows[4]["status"] == "ok"
    assert not list(tmp_path.glob("*.partial*"))
    code, _, err = run("predict", probe_folder, photos, "--output", tmp_path / "p.csv")
    assert code == 2 and "is there already" in err


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_a_stopped_one_goes_on(run, probe_folder, photos, tmp_path, monkeypatch, name):
    """Files that were written are not looked at again, a half-written line is, and the end is that of one run."""
    run("predict", probe_folder, photos, "--output", tmp_path / f"whole-{name}", "--batch-size", 2)
    real, looked = prediction._open, []

    def stopping(path, probe):
        looked.append(path)
        if len(looked) == 5:
            raise KeyboardInterrupt
        return real(path, probe)

    monkeypatch.setattr(prediction, "_open", stopping)
    assert run("predict", probe_folder, photos, "--output", tmp_path / name, "--batch-size", 2)[0] != 0
    growing = tmp_path / (name if name != "p.parquet" else f"{name}.partial.jsonl")
    with growing.open("a") as file:
        file.write("half a li")
    code, out, _ = run("predict", probe_folder, photos, "--output", tmp_path / name, "--batch-size", 2, "--resume")
    assert (code, out.split()[0]) == (0, "8") and len(looked) == 5 + 4
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def given(monkeypatch, content):
    """Let a command find bytes on its standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_lists_as_programs_write_them(photos):
    """Lines, zero bytes, byte order marks, UTF-16, folders, and names in no encoding at all."""
    one, two = photos / "5.png", photos / "1.png"
    text = f"{one}\r\n{two}\r\n"
    for content in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16"), f"{one}\0{two}\0".encode()):
        assert read_list(content) == [one, two]
    assert read_list(str(photos).encode()) == find_images([photos])
    assert os.fsencode(read_list(b"caf\xe9.png\n")[0]) == b"caf\xe9.png"


def test_tables_to_predict(photos):
    """A table of paths stands for its images; data that are no image are refused with the way out."""
    table = photos.parent / "list.csv"
    table.write_text("path,label\n" + "".join(f"{photos.name}/{i}.png,x\n" for i in (5, 1)))
    assert find_images([table]) == [photos / "5.png", photos / "1.png"]
    (photos.parent / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="holds data, not an image: evaluate --dataset"):
        find_images([photos.parent / "t.parquet"])


def test_unsure_answers_and_lists(run, probe_folder, photos, monkeypatch):
    """Below the threshold an answer is unsure; a list on standard input is read; pictures are drawn on demand."""
    code, out, _ = run("predict", probe_folder, photos, "--threshold", 1.0, "--label", "band 1")
    assert code == 0 and out.count("(unsure)") == 7
    code, _, err = run("predict", probe_folder, photos, "--threshold", 2)
    assert code == 2 and "threshold is 2" in err
    given(monkeypatch, f"{photos / '5.png'}\n\n{photos / '1.png'}\n".encode())
    code, out, _ = run("predict", probe_folder, "-")
    assert [line.partition(":")[0].rpartition("/")[2] for line in out.splitlines()] == ["5.png", "1.png"]
    code, out, _ = run("predict", probe_folder, photos, "--explain", photos.parent / "why")
    assert code == 0 and len(list((photos.parent / "why").glob("*.png"))) == 7
    given(monkeypatch, b"\n")
    assert "names no file" in run("predict", probe_folder, "-")[2]


def test_probabilities_know_their_temperature(probe_folder, photos):
    """A stored temperature flattens probabilities and leaves answers and logits alone, also after saving."""
    probe = ProbeForImageClassification.from_pretrained(probe_folder)
    files = sorted(photos.glob("[0-9].png"))
    plain = list(predict_files(probe, files))
    probe.config.temperature = 4.0
    probe.save_pretrained(photos.parent / "warm")
    warm = list(predict_files(ProbeForImageClassification.from_pretrained(photos.parent / "warm"), files))
    for one, other in zip(plain, warm, strict=True):
        expected = torch.tensor(one.scores).log().div(4).softmax(0).tolist()
        assert other.labels == one.labels and other.scores == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="temperature"):
        ProbeForImageClassification.from_pretrained(_with(photos.parent / "warm", temperature=0.0))


def _with(folder, **values):
    content = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_embeddings(run, probe_folder, photos, tiny_backbone, tmp_path):
    """Features of a probe and tokens of a backbone, in Parquet and safetensors, as the model has them."""
    code, out, _ = run("embed", probe_folder, photos, "--output", tmp_path / "e.parquet", "--batch-size", 3)
    assert (code, out.split()[:3]) == (0, ["7", "of", "8"])
    table = pq.read_table(tmp_path / "e.parquet").to_pylist()
    probe = ProbeForImageClassification.from_pretrained(probe_folder).eval()
    first = probe.image_processor([Image.open(table[0]["path"])], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert table[0]["embedding"] == pytest.approx(probe(first).features[0].tolist(), abs=1e-5)
    backbone = tiny_backbone("vit")
    code, _, _ = run(
        "embed", backbone, photos, "--tokens", "cls", "--tokens", "mean", "--output", tmp_path / "e.safetensors"
    )
    with safe_open(tmp_path / "e.safetensors", "np") as file:
        assert code == 0 and file.get_tensor("embeddings").shape == (7, 2, 32)
        assert len(file.metadata()["paths"].splitlines()) == 7
    run("embed", backbone, photos, "--tokens", "patches@block:1", "--output", tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", "np") as file:
        assert file.get_tensor("embeddings").shape == (7, 16, 32) and np.isfinite(file.get_tensor("embeddings")).all()
    assert (
        "Valid: .parquet, .safetensors"
        in run("embed", backbone, photos, "--tokens", "cls", "--output", tmp_path / "e.txt")[2]
    )


def test_names_that_are_no_utf8(run, probe_folder, photos, tmp_path, caplog):
    """They are predicted under a name that can be read, and left out of training with their number."""
    shutil.copy(photos / "1.png", os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    code, _, _ = run("predict", probe_folder, photos, "--output", tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert code == 0 and len(rows) == 9
    (odd,) = [row for row in rows if row["path"].endswith("caf\\xe9.png")]
    assert odd["status"] == "ok"
    assert len(load_split(str(photos.parent), "train")) == 8  # of which one is broken
    assert "1 files are left out, for their names are no UTF-8" in caplog.text and "caf\\xe9.png" in caplog.text
