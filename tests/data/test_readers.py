"""Readers of local data: all common forms of images and labels, and what is said of broken ones."""

import json
import os
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Image, concatenate_datasets

from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_split
from attentive_probes.data.open_split import open_split
from attentive_probes.problems.label_table import LabelTable
from colours import PALETTE, class_folders, content, pets, picture, png, shard, table


@pytest.mark.parametrize("odd", ["a [v2]", "#1 100%", "what?*", "ünï çødé", "g::h", "{j,k}!~&=", "train 1"])
def test_any_character_in_a_path(tmp_path, odd):
    """Parquet, shards, class folders and tables in folders of any name, held and streamed."""
    root = tmp_path / odd
    class_folders(root / "folders", {"train/x y": [0], "train/#z": [1]})
    class_folders(root / "listed", {"100%": [0], "im [2]": [1]})
    (root / "listed" / "list.csv").write_text("image,label\n100%/000.png,x y\nim [2]/000.png,#z\n")
    with (root / "one.parquet").open("wb") as file:
        table([0, 1], ["x y", "#z"]).to_parquet(file)
    shard(root / "shards" / "train-0.tar", [{"png": png(0), "cls": b"x y"}, {"png": png(1), "cls": b"#z"}])
    for source in ("folders", "listed/list.csv", "one.parquet", "shards"):
        for streaming in (False, True):
            assert content(root / source, streaming=streaming) == {"x y": 1, "#z": 1}, source


@pytest.mark.parametrize("kind", ["bytes", "struct", "path"])
def test_parquet_of_other_libraries(tmp_path, kind):
    """Images as bytes, as a struct, or as paths beside the file, without what Hugging Face stores."""
    class_folders(tmp_path / "images", {"0": [0], "1": [1]})
    cell = {
        "bytes": png,
        "struct": lambda k: {"bytes": png(k), "path": "x.png"},
        "path": lambda k: f"images/{k}/000.png",
    }[kind]
    os.makedirs(tmp_path / "parquet")
    shutil.move(tmp_path / "images", tmp_path / "parquet" / "images")
    file = tmp_path / "parquet" / "one.parquet"
    pq.write_table(pa.table({"image": [cell(0), cell(1)], "label": ["red", "blue"]}), file)
    split = open_split("train", load_split(str(file), "train"), ImageOptions(),
                       LabelEncoder(LabelTable.of_values(["blue", "red"]), "single_label_classification"))  # fmt: skip
    assert [(split[i].label, tuple(split[i].image.getpixel((0, 0)))) for i in range(2)] == [
        (1, tuple(PALETTE[0])), (0, tuple(PALETTE[1])),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["zip of the root", "zip of a folder", "zips of splits"])
def test_zips(tmp_path, form):
    """Zips of class folders, one for all or one per split, are unpacked into the cache."""
    pets(tmp_path / "pets")
    if form == "zips of splits":
        for split in ("train", "test"):
            shutil.make_archive(tmp_path / "zips" / split, "zip", tmp_path / "pets" / split)
        source = tmp_path / "zips"
    else:
        base = (
            {"root_dir": tmp_path / "pets"} if form == "zip of the root" else {"root_dir": tmp_path, "base_dir": "pets"}
        )
        source = shutil.make_archive(tmp_path / "all", "zip", **base)
    assert content(source) == {"cat": 3, "dog": 3}
    assert content(source, "test") == {"cat": 2, "dog": 2}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_tables_of_paths(tmp_path, ending):
    """Paths are relative to the table; 001, NA and None are names, 1 and -2 numbers; further columns are no matter."""
    class_folders(tmp_path, {"a": [0, 0], "b": [1]})
    rows = [("a/000.png", "001", 1), ("a/001.png", "001", 1), ("b/000.png", "NA", -2)]
    if ending == ".jsonl":
        lines = [json.dumps({"image": p, "label": t, "age": n}) for p, t, n in rows]
    else:
        mark = {".csv": ",", ".tsv": "\t"}[ending]
        lines = [mark.join(("image", "label", "age")), *(mark.join(map(str, row)) for row in rows)]
    (tmp_path / f"list{ending}").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    data = load_split(str(tmp_path / f"list{ending}"), "train")
    assert data["label"][:] == ["001", "001", "NA"] and data["age"][:] == [1, 1, -2]
    assert content(tmp_path / f"list{ending}") == {"001": 2, "NA": 1}
    (tmp_path / "bad.csv").write_text("image,label\nno/such.png,1\n")
    with pytest.raises(ValueError, match=r"Row 1 of .*bad\.csv names the image 'no/such.png', which is not there"):
        load_split(str(tmp_path / "bad.csv"), "train")
    (tmp_path / "none.csv").write_text("picture,label\na/000.png,1\n")
    with pytest.raises(ValueError, match=r"has the columns \['label', 'picture'\]; set image_column"):
        load_split(str(tmp_path / "none.csv"), "train")
    assert len(load_split(str(tmp_path / "none.csv"), "train", image_column="picture")) == 1


def test_tables_of_splits_beside_a_folder_of_images(tmp_path):
    """`train.csv` and `test.csv` that list files below them, also of class folders; other tables change nothing."""
    class_folders(tmp_path, {"images": [0, 1, 0]})
    (tmp_path / "train.csv").write_text("file_name,label\nimages/000.png,a\nimages/001.png,b\n")
    (tmp_path / "val.csv").write_text("file_name,label\nimages/002.png,a\n")
    assert content(tmp_path) == {"a": 1, "b": 1} and content(tmp_path, "validation") == {"a": 1}
    class_folders(tmp_path, {"other": [2]})
    assert content(tmp_path) == {"a": 1, "b": 1}
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text("epoch,loss\n1,0.5\n")
    assert load_split(str(tmp_path), "train").features["label"].names == ["images", "other"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata(tmp_path, name):
    """Labels of a metadata file, `None` and `NA` included; without labels there, those of the class folders."""
    class_folders(tmp_path / "train", {"cat": [0, 0], "dog": [1]})
    rows = [("cat/000.png", "None"), ("cat/001.png", "None"), ("dog/000.png", "NA")]
    if name.endswith("csv"):
        text = "file_name,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    else:
        text = "".join(json.dumps({"file_name": path, "label": label}) + "\n" for path, label in rows)
    (tmp_path / "train" / name).write_text(text)
    assert content(tmp_path) == {"None": 2, "NA": 1}
    (tmp_path / "train" / name).write_text(text.replace("label", "caption"))
    assert content(tmp_path) == {"cat": 2, "dog": 1}


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset(tmp_path, streaming):
    """Labels in .cls, .txt and fields of .json, numbers or names; images of several endings; shards of splits."""
    for name, sample, labels in (
        ("cls", lambda k: {"png": png(k), "cls": str(k).encode()}, {0: 2, 1: 2}),
        ("txt", lambda k: {("png", "jpg")[k]: png(k, ("PNG", "JPEG")[k]), "txt": b"ab"[k : k + 1]}, {"a": 2, "b": 2}),
        ("json", lambda k: {"webp": png(k, "PNG"), "json": {"label": "xy"[k], "id": 7}}, {"x": 2, "y": 2}),
    ):  # fmt: skip
        shard(tmp_path / name / "train-000.tar", [sample(0), sample(1)])
        shard(tmp_path / name / "train-001.tar", [sample(1), sample(0)])
        assert content(tmp_path / name, streaming=streaming) == labels
    field = load_split(str(tmp_path / "json"), "train", label_column="json.id", streaming=streaming)
    assert [row["json.id"] for row in field] == [7] * 4
    assert [row["json"] for row in load_split(str(tmp_path / "json"), "train", label_column="json")] == list("xyyx")
    shard(tmp_path / "two" / "train-000.tar", [{"png": png(0), "json": {"id": 1, "species": "x"}}])
    with pytest.raises(ValueError, match=r"have no 'json'; set label_column to one of \['json.id', 'json.species'\]"):
        load_split(str(tmp_path / "two"), "train", label_column="json")


@pytest.mark.parametrize(
    ("name", "bytes_", "message"),
    [
        ("a.txt", b"x", "a file of the ending '.txt' is no data set"),
        ("a.parquet", b"no parquet", "(?i)parquet"),
        ("a.tar", b"no tar at all", "is no tar archive"),
        ("a.zip", b"no zip", "is no zip"),
        ("a.csv", b"", "has no rows"),
        ("a.jsonl", b"{broken", "Line 1 of .* is no JSON"),
        ("folder/x.doc", b"", "holds no images, Parquet files, WebDataset shards or tables"),
        ("train/x.png", png(0), "no class folders and no metadata.csv"),
    ],
)
def test_causes_are_one_sentence(tmp_path, name, bytes_, message):
    """Whatever a library throws reaches the user as one line with the cause and the file."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes_)
    source = path if path.parent == tmp_path else tmp_path
    with pytest.raises(ValueError, match=message) as caught:
        load_split(str(source), "train")
    assert "\n" not in str(caught.value) and str(source) in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("source", ["/no/such/place", "./pets", "~/no-such-pets", "a/b/c", "list.csv"])
def test_nothing_there(source):
    """What can only be a file or folder is not looked for on the Hub."""
    with pytest.raises(ValueError, match="there is no such file or folder"):
        load_split(source, "train")


def test_other_objects(tmp_path):
    """Datasets with a transform, with a format, joined ones, and PyTorch datasets are read as they are stored."""
    plain = table([0, 1, 0], ["a", "b", "a"])
    encoder = LabelEncoder(LabelTable.of_values(["a", "b"]), "single_label_classification")

    class Pictures:
        classes, targets = ["b", "a"], [1, 0, 1]

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return picture([0, 1, 0][index]), self.targets[index]

    shown = plain.with_transform(lambda batch: {"pixels": [1 for _ in batch["image"]]})
    for data in (shown, plain.with_format("torch", columns=["label"]), concatenate_datasets([plain]), Pictures(),
                 plain.cast_column("image", Image(decode=False))):  # fmt: skip
        split = open_split("train", data, ImageOptions(), encoder)
        assert split.targets().tolist() == [0, 1, 0]
        assert [tuple(split[i].image.getpixel((0, 0))) for i in range(3)] == [tuple(PALETTE[k]) for k in (0, 1, 0)]


def test_data_without_a_cache(tmp_path, monkeypatch):
    """Where no cache can be written, what ships with the package is read all the same, and a zip says what to set."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / "cache"))
    found = load_split("embedded:fashion-mnist", "test[:20]")
    assert len(found) == 20 and found.features["label"].num_classes == 10 and found[0]["image"].size == (28, 28)
    class_folders(tmp_path / "folders", {"train/x": [0], "train/y": [1]})
    shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "folders")
    with pytest.raises(ValueError, match=r"file/cache, cannot be written to: set HF_HOME"):
        load_split(str(tmp_path / "images.zip"), "train")
