import io
import tarfile

import pytest
from datasets import DatasetDict

from attentive_probes import HeadConfig, ProbeForImageClassification, ProbeTrainer, ProbeTrainingArguments
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
    data.to_parquet(tmp_path / "one test.parquet")
    DatasetDict({"test": data}).save_to_disk(tmp_path / "saved")
    sources = ["folders", "parquet", "one test.parquet"] + ([] if streaming else ["saved"])
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
    with pytest.raises(ValueError, match="has one split; call it 'train'"):
        load_split(str(tmp_path / "saved"), "trian")
    with pytest.raises(ValueError, match="no asset 'embedded:imagenet'.*embedded:fashion-mnist"):
        load_split("embedded:imagenet", "train")
    with pytest.raises(ValueError, match="Cannot load the split 'train' of 'no/such-data'"):
        load_split("no/such-data", "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset_shards(tmp_path, tiny_backbone, streaming):
    """Shards by their split's name, an image and a label per sample; a run trains on them."""
    for split, count in (("train", 16), ("test", 6)):
        rows = list(image_dataset(count, seed=count))
        for shard in range(2):
            with tarfile.open(tmp_path / f"{split}-{shard:04d}.tar", "w") as tar:
                for i, row in list(enumerate(rows))[shard::2]:
                    picture = io.BytesIO()
                    row["image"].save(picture, "png")
                    for ending, content in (("png", picture.getvalue()), ("cls", str(row["label"]).encode())):
                        entry = tarfile.TarInfo(f"{i:04d}.{ending}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    train, test = (load_split(str(tmp_path), split, streaming=streaming) for split in ("train", "test"))
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), num_labels=3)
    arguments = ProbeTrainingArguments(str(tmp_path / "run"), max_steps=4, batch_size=8)
    results = ProbeTrainer(probe, arguments, train, test).train()
    assert results.heads[0].history[-1]["epoch"] == 2
