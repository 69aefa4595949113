import pytest
from datasets import DatasetDict

from attentive_probes.data.load import load_split
from tiny import image_dataset


def test_embedded_slice():
    """The shipped images load by name, class-balanced, with disjoint splits."""
    splits = {name: load_split("embedded:fashion-mnist", name) for name in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 10_000, "validation": 1_000, "test": 4_000}
    seen = {}
    for name, split in splits.items():
        labels = split["label"][:]
        assert {labels.count(c) for c in range(10)} == {len(split) // 10}
        seen[name] = {row["image"].tobytes() for row in split.select(range(1000))}
    assert not seen["train"] & seen["validation"]
    assert splits["test"].features["label"].names[9] == "Ankle boot"


@pytest.mark.parametrize("streaming", [False, True])
def test_image_folders_parquet_and_saved_datasets(streaming, tmp_path):
    """The same images come back from image folders, from Parquet files and folders, and from save_to_disk."""
    data = image_dataset(6)
    for split in ("train", "test"):
        for i, row in enumerate(data):
            folder = tmp_path / "folders" / split / data.features["label"].names[row["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            row["image"].save(folder / f"{i}.png")
    (tmp_path / "parquet").mkdir()
    data.to_parquet(tmp_path / "parquet" / "test.parquet")
    data.to_parquet(tmp_path / "one.parquet")
    DatasetDict({"test": data}).save_to_disk(tmp_path / "saved")
    sources = ["folders", "parquet", "one.parquet"] + ([] if streaming else ["saved"])
    expected = sorted((row["label"], row["image"].tobytes()) for row in data)
    for source in sources:
        loaded = load_split(str(tmp_path / source), "test", streaming=streaming)
        assert sorted((row["label"], row["image"].tobytes()) for row in loaded) == expected, source
    assert len(load_split(str(tmp_path / "parquet"), "test[:50%]")) == 3


def test_wrong_splits_and_sources_are_named(tmp_path):
    """A wrong split names the right ones; a wrong source is named too."""
    image_dataset(3).to_parquet(tmp_path / "train.parquet")
    DatasetDict({"train": image_dataset(3)}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"split 'tset' .*train"):
        load_split("embedded:fashion-mnist", "tset")
    with pytest.raises(ValueError, match="Unknown split of .* 'trian'. Did you mean 'train'"):
        load_split(str(tmp_path / "saved"), "trian")
    with pytest.raises(ValueError, match="no asset 'embedded:imagenet'.*embedded:fashion-mnist"):
        load_split("embedded:imagenet", "train")
    with pytest.raises(ValueError, match="Cannot load the split 'train' of 'no/such-data'"):
        load_split("no/such-data", "train")
