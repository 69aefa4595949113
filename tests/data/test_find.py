"""What a folder is taken for, whatever else lies in it."""

import os
import stat

import pytest
from datasets import ClassLabel, DatasetDict

from attentive_probes.data.load import load_named, load_split, same_rows
from attentive_probes.evaluation.prediction import find_images
from colours import class_folders, content, pets, png, table


@pytest.mark.parametrize("words", [("train", "test"), ("training", "val"), ("Train", "DEV"), ("train", "evaluation")])
def test_split_folders_and_their_synonyms(tmp_path, words):
    """Splits are the folders right below the root, by any of their usual names; no other folder or file is one."""
    for word, count in zip(words, (3, 2), strict=True):
        class_folders(tmp_path / word, {"test": [0] * count, "train": [1] * count, "val 1": [2] * count})
    (tmp_path / words[0] / "train" / "000.png").rename(tmp_path / words[0] / "train" / "test 7.png")
    assert content(tmp_path, "train") == {"test": 3, "train": 3, "val 1": 3}
    other = {"val": "validation", "DEV": "validation"}.get(words[1], "test")
    assert content(tmp_path, other) == content(tmp_path, words[1]) == {"test": 2, "train": 2, "val 1": 2}
    with pytest.raises(ValueError, match=r"Unknown split of .* Valid: (test|train|validation), "):
        load_split(str(tmp_path), "nosuchsplit")


@pytest.mark.parametrize("names", [("blank", "test", "control"), ("train", "bus", "car"), ("validation", "x")])
def test_classes_named_like_splits(tmp_path, names):
    """Folders of which some are named like splits, and none holds folders, are classes."""
    class_folders(tmp_path, {name: [i] * 2 for i, name in enumerate(names)})
    assert content(tmp_path) == dict.fromkeys(sorted(names), 2)


def test_folders_below_classes_belong_to_them(tmp_path):
    """Sessions, patients and years, at any depth, and an image that lies one level deeper."""
    class_folders(tmp_path / "train", {"cat/s1": [0] * 2, "cat/s2/2024": [0], "dog/s1": [1], "dog": [1]})
    assert content(tmp_path) == {"cat": 3, "dog": 2}
    assert load_split(str(tmp_path), "train").features["label"].names == ["cat", "dog"]


def test_folders_that_could_be_both_are_refused(tmp_path):
    """`train` beside another folder, both of folders: classes with sessions or splits? A split that is named tells."""
    class_folders(tmp_path, {"train/cat": [0], "train/dog": [1], "holdout/cat": [0], "holdout/dog": [1]})
    with pytest.raises(ValueError, match="classes or splits: 'train' is named like a split, 'holdout' is not"):
        load_split(str(tmp_path), "train")
    assert content(tmp_path, "holdout") == {"cat": 1, "dog": 1}
    assert [len(part) for part in load_named(str(tmp_path), ["train", "holdout"]).values()] == [2, 2]


def test_a_folder_is_listed_once_for_all_splits(tmp_path, monkeypatch):
    """Every folder is read once, however many splits are named."""
    class_folders(tmp_path, {f"{split}/{name}": [0] for split in ("train", "val", "test") for name in ("a", "b")})
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert len(load_named(str(tmp_path), ["train", "validation", "test"])) == 3
    mine = [path for path in listed if path.startswith(str(tmp_path))]
    assert len(mine) == len(set(mine)) == 10


@pytest.mark.parametrize("stray", ["a.tar", "b.zip", "c.parquet", ".cache/d.parquet", "train/e.csv", "notes.txt"])
def test_stray_files_change_nothing(tmp_path, stray, caplog):
    """An archive, a Parquet file, a table among images; what is left aside is said in one line, unless it is hidden."""
    pets(tmp_path)
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_bytes(b"nothing of the kind")
    with caplog.at_level("INFO"):
        assert content(tmp_path) == {"cat": 3, "dog": 3}
    assert ("left aside" in caplog.text) == (not stray.startswith("."))


def test_leftovers_links_and_characters(tmp_path):
    """Hidden files and leftovers are no images, also for prediction; links are followed, circles are not; any name."""
    real = pets(tmp_path / "real [v2] #1%?*")
    for name in (".DS_Store", "Thumbs.db", "train/._cat.png", "train/.ipynb_checkpoints/cat/0.png", "train/cat/.x.png",
                 "__MACOSX/train/cat/0.png", "train/cat/@eaDir/0.png"):  # fmt: skip
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        (real / name).write_bytes(png(5))
    assert content(real) == {"cat": 3, "dog": 3}
    assert len(find_images([real])) == 10
    linked = tmp_path / "linked"
    (linked / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (linked / "train" / name).symlink_to(real / "train" / name)
    (real / "train" / "cat" / "again").symlink_to(real / "train")
    assert content(linked)["dog"] == 3
    assert content(real)["dog"] == 3


def test_a_read_only_folder_works(tmp_path):
    """Nothing is written beside the data."""
    root = pets(tmp_path / "data")
    table([0, 1], ["a", "b"]).to_parquet(root / "more.parquet")
    before = sorted(root.rglob("*"))
    for path in [root, *root.rglob("*")]:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert content(root) == {"cat": 3, "dog": 3}
    assert sorted(root.rglob("*")) == before
    for path in [root, *root.rglob("*")]:
        path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_single_file_or_dataset_has_one_split(tmp_path, streaming):
    """One Parquet file, one saved dataset, one folder of classes: `train`, its slices, and nothing else."""
    data = table([i % 4 for i in range(20)], [i % 4 for i in range(20)])
    data.to_parquet(tmp_path / "one.parquet")
    data.save_to_disk(tmp_path / "saved")
    class_folders(tmp_path / "folder", {str(kind): [kind] * 5 for kind in range(4)})
    for source in ("one.parquet", "saved", "folder"):
        path = str(tmp_path / source)
        rows = sum(1 for _ in load_split(path, "train", streaming=streaming))
        assert rows == 20
        for split in ("test", "nosuchsplit", "validation"):
            with pytest.raises(ValueError, match="has one split; call it 'train', and name parts of it by slices"):
                load_split(path, split, streaming=streaming)
        if streaming:
            with pytest.raises(ValueError, match="a stream has no slices"):
                load_split(path, "train[:10]", streaming=True)
        else:
            assert [len(load_split(path, split)) for split in ("train[:7]", "train[50%:]", "train[-3:]")] == [7, 10, 3]


def test_slices_of_every_kind(tmp_path):
    """Slices work wherever a split is named; overlapping ones share rows, others do not."""
    data = table([0] * 10, range(10))
    DatasetDict({"train": data, "test": data.select(range(4))}).save_to_disk(tmp_path / "saved")
    assert load_split(str(tmp_path / "saved"), "test[1:3]")["label"][:] == [1, 2]
    assert load_split(str(tmp_path / "saved"), "train[:2]+train[8:]")["label"][:] == [0, 1, 8, 9]
    overlapping = [("train", "train"), ("train", "train[:5]"), ("val", "validation"), ("train[:60%]", "train[50%:]")]
    assert all(same_rows(*pair) for pair in overlapping)
    overlapping += [("train[:50000]", "train[49999:]"), ("train[:10]+train[90:]", "train[95:99]")]
    assert all(same_rows(*pair) for pair in overlapping)
    apart = [("train", "test"), ("train[:50%]", "train[50%:]"), ("train[:1000000]", "train[1000000:]")]
    apart += [("train[:50%]", "train[100:]")]  # nobody can tell before the data are read
    assert not any(same_rows(*pair) for pair in apart)


def test_shards_by_their_names(tmp_path):
    """Parquet shards by words of their names or folders; class names in another order are matched by name."""
    for name, kinds, names in (
        ("data/train-00000-of-2", [0, 1], ["x", "y"]),
        ("data/train-00001-of-2", [1, 0], ["y", "x"]),
        ("data/test", [0], ["x", "y"]),
        ("valid/part0", [1], ["x", "y"]),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table(kinds, [0, 1][: len(kinds)] if name != "valid/part0" else [1], ClassLabel(names=names)).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    assert content(tmp_path) == {"x": 2, "y": 2}
    assert content(tmp_path, "test") == {"x": 1}
    assert content(tmp_path, "validation") == {"y": 1}
    with pytest.raises(ValueError, match="class names in 2 different orders; read them without streaming"):
        load_split(str(tmp_path), "train", streaming=True)


def test_splits_with_different_columns(tmp_path):
    """A column that one split alone has is no matter."""
    table([0, 1], ["a", "b"]).to_parquet(tmp_path / "train.parquet")
    table([0], ["a"]).add_column("source", ["web"]).to_parquet(tmp_path / "test.parquet")
    assert content(tmp_path) == {"a": 1, "b": 1} and content(tmp_path, "test") == {"a": 1}
