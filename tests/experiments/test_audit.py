"""What is wrong with a folder is found, drawn, written down, and left out on demand."""

import csv
import json

import pytest
from PIL import Image

from attentive_probes.auditing.findings import Audit, Finding
from attentive_probes.experiments.audit import audit_recipe
from attentive_probes.experiments.automatic import AutoOptions
from attentive_probes.experiments.options import find_run
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps.split_files import write_keep
from tiny import image_dataset


@pytest.fixture
def recipe(tiny_backbone, tmp_path):
    """60 images of three classes in folders: three copied, one of them under another label, and one wrong label."""
    for i, row in enumerate(image_dataset(60, seed=3)):
        folder = tmp_path / "photos" / f"band {row['label']}"
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{i:02d}.png")
    source = tmp_path / "photos"
    (source / "band 0" / "copy.png").write_bytes((source / "band 0" / "00.png").read_bytes())
    Image.open(source / "band 1" / "01.png").save(source / "band 1" / "again.bmp")  # equal pixels, other bytes
    (source / "band 0" / "wrong.png").write_bytes((source / "band 2" / "02.png").read_bytes())
    options = AutoOptions(tiny_backbone("vit"), tmp_path / "run")
    return find_run(str(source), options, [f"data.cache.folder={tmp_path / 'tokens'}", "train.num_train_epochs=1"])


def test_copies_and_labels(recipe, tmp_path):
    """Both copies are found with their files, and the image under two labels is named with both."""
    found, raw = audit_recipe(recipe, tmp_path / "audit")
    rows = list(csv.DictReader((tmp_path / "audit" / "audit.csv").read_text().splitlines()))
    pairs = {
        frozenset(row[key].rpartition("/")[2] for key in ("file", "other_file"))
        for row in rows
        if row["kind"] in ("leak", "duplicate")
    }
    assert {frozenset(("00.png", "copy.png")), frozenset(("01.png", "again.bmp"))} <= pairs
    (twice,) = [
        row
        for row in rows
        if {"02.png", "wrong.png"} == {row[key].rpartition("/")[2] for key in ("file", "other_file")}
    ]
    assert {twice["label"], twice["likely"]} == {"band 0", "band 2"} and float(twice["score"]) == 1
    assert any(one.file.endswith("wrong.png") and one.likely == "band 2" for one in found.of_kind("label"))
    summary = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert summary["settings"]["sizes"]["median"] == [16, 16]
    assert summary["settings"]["sizes"]["smaller than the backbone reads"] == 0
    assert sum(sum(counts.values()) for counts in summary["classes"].values()) == 63
    assert (tmp_path / "audit" / "copies.jpg").exists() and (tmp_path / "audit" / "suspects.jpg").exists()
    dropped = found.to_drop()
    assert 3 <= sum(map(len, dropped.values())) == write_keep(raw, dropped, tmp_path / "keep.csv")


@pytest.mark.slow
def test_what_is_left_out_stays_out(recipe, tmp_path):
    """A run on what an audit keeps has fewer images, and no copy; a list of other splits is refused."""
    found, raw = audit_recipe(recipe, tmp_path / "audit")
    count = write_keep(raw, found.to_drop(), tmp_path / "keep.csv")
    text = tmp_path / "recipe.yaml"
    recipe.save(text)
    small = ["selection=null", "evaluation.references={}", "grid.seed=[0]", f"data.keep={tmp_path / 'keep.csv'}"]
    results = run_recipe(Recipe.load(text, small))
    assert sum(split["images"] for split in results.data.values()) == 63 - count
    rows = list(csv.DictReader((tmp_path / "run" / "audit.csv").read_text().splitlines()))
    assert not [row for row in rows if row["kind"] in ("leak", "duplicate") and float(row["score"]) == 1]
    with pytest.raises(ValueError, match="belongs to other splits"):
        run_recipe(Recipe.load(text, [*small, "data.split_seed=5", "train.overwrite=true"]))
    (tmp_path / "keep.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="cannot be read as a list of rows to keep"):
        run_recipe(Recipe.load(text, [*small, "train.overwrite=true"]))


def test_which_end_of_a_pair_goes():
    """Of a leak the training image goes, of a duplicate the later one; labels of the test split stay."""
    findings = [
        Finding("leak", "test", 7, 0, "", "a", 1.0, "train", 3),
        Finding("leak", "validation", 5, 0, "", "a", 1.0, "test", 8),
        Finding("duplicate", "test", 2, 0, "", "a", 1.0, "test", 9),
        Finding("label", "test", 4, 0, "", "a", 0.9, likely="b"),
        Finding("label", "train", 6, 0, "", "a", 0.9, likely="b"),
    ]
    audit = Audit(findings, [], {})
    assert audit.to_drop() == {"train": {3}, "validation": {5}, "test": {9}}
    assert audit.to_drop(("label",)) == {"train": {6}}
    assert "2 images of the test split" in audit.warnings[0]


def test_what_cannot_be_audited(recipe, tmp_path):
    """Unknown kinds and problems without classes are refused before the work."""
    with pytest.raises(ValueError, match="Did you mean 'duplicate'"):
        audit_recipe(recipe, tmp_path / "audit", ("duplicates",))
    recipe.data.problem_type = "regression"
    with pytest.raises(ValueError, match="one label each"):
        audit_recipe(recipe, tmp_path / "audit")
