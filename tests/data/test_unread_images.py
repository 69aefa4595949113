"""Images are decoded where they are cached or trained on: never before it, never twice, by all processes together."""

import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.data import image_split
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_split
from attentive_probes.data.pixels.content_hashes import find_content
from attentive_probes.data.token_cache import CacheOptions
from colours import class_folders
from spawned import on_processes

FILES = {"a": [0] * 5, "b": [1] * 4, "c": [2] * 4}
BROKEN = ("a/001.png", "c/000.png")


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "images", FILES)


@pytest.fixture
def sweep(tiny_backbone):
    heads = {"mean": HeadRun(HeadConfig("mean"))}
    return ProbeSweep.from_backbone(tiny_backbone("vit"), heads, labels=list(FILES))


def split_of(sweep, folder, **options) -> ImageSplit:
    encoder = LabelEncoder.of_probe(sweep.config)
    return ImageSplit("train", load_split(str(folder), "train"), ImageOptions(**options), encoder)


def cached(sweep, split, folder, **options):
    options = CacheOptions(str(folder), shard_size=4, batch_size=3, **options)
    return build_token_cache(sweep.backbone, split, sweep.readings, sweep.image_processor, options)


def count_decoded(monkeypatch) -> list[str]:
    decoded, original = [], image_split.open_image
    monkeypatch.setattr(
        image_split, "open_image", lambda cell, *rest: decoded.append(cell["path"]) or original(cell, *rest)
    )
    return decoded


def break_some(folder) -> None:
    for name in BROKEN:
        path = next(folder.rglob(name))
        path.write_bytes(path.read_bytes()[:40])


def test_caching_decodes_each_image_once(sweep, folder, tmp_path, monkeypatch):
    """Besides a first batch, which tells the time; a second run decodes none. A check of its own is remembered."""
    decoded = count_decoded(monkeypatch)
    cached(sweep, split_of(sweep, folder, check=False), tmp_path / "tokens")
    assert len(decoded) == 13 + 3
    decoded.clear()
    cached(sweep, split_of(sweep, folder, check=False), tmp_path / "tokens")
    assert decoded == []
    split_of(sweep, folder)
    assert len(decoded) == 13
    split_of(sweep, folder)
    assert len(decoded) == 13


def test_changed_files_are_looked_at_again(sweep, folder):
    """A file of another size or time is another file; a copy of a folder has the same content."""
    before = split_of(sweep, folder).content()
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    assert np.array_equal(split_of(sweep, copy).content(), before)
    break_some(folder)
    with pytest.raises(ValueError, match="2 of 13 train images: The image .*001.png cannot be read"):
        split_of(sweep, folder)
    after = split_of(sweep, folder, check=False).content()
    assert (after != before).sum() == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_met_while_caching(sweep, folder, tmp_path, num_workers):
    """Left out and counted under one policy, named under the other; no shard is computed again in between."""
    expected = cached(sweep, split_of(sweep, folder), tmp_path / "whole")
    break_some(folder)
    options = CacheOptions(str(tmp_path / "tokens"), shard_size=4, batch_size=3)
    arguments = (sweep.readings, sweep.image_processor, options)
    with pytest.raises(ValueError, match=r"^The image \S*png cannot be read \([^)]*\); repair or remove it") as caught:
        build_token_cache(sweep.backbone, split_of(sweep, folder, check=False), *arguments, num_workers=num_workers)
    assert "Traceback" not in str(caught.value)
    split = split_of(sweep, folder, check=False, unreadable="skip")
    cache = build_token_cache(sweep.backbone, split, *arguments, num_workers=num_workers)
    assert (len(cache), cache.num_unreadable, cache.left_out.tolist()) == (11, 2, [1, 9])
    kept = [row for row in range(13) if row not in (1, 9)]
    rows = cache.__getitems__(list(range(11)))
    assert rows["labels"].tolist() == [0] * 4 + [1] * 4 + [2] * 3
    whole = expected.__getitems__(kept)["tokens"]["last"].patches
    assert np.array_equal(rows["tokens"]["last"].patches, whole)
    with pytest.raises(ValueError, match="cannot be read"):
        cached(sweep, split_of(sweep, folder, check=False), tmp_path / "tokens")
    part = split_of(sweep, folder, check=False, unreadable="skip")
    part.data, part.labels, part._content = (
        part.data.select([0, 1, 5]),
        part.labels[[0, 1, 5]],
        part.content()[[0, 1, 5]],
    )
    found = cached(sweep, part, tmp_path / "tokens")
    assert (found.store.folder, len(found), found.num_unreadable) == (cache.store.folder, 2, 1)


def test_nothing_that_can_be_read_is_refused(sweep, tmp_path):
    """A split of broken files alone has no cache."""
    folder = class_folders(tmp_path / "images", {"a": [0] * 2, "b": [1]})
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="holds no image that can be read"):
        cached(sweep, split_of(sweep, folder, check=False, unreadable="skip"), tmp_path / "tokens")


def test_a_first_batch_that_cannot_be_read_spoils_nothing(sweep, folder, tmp_path):
    """The channels of int8 are evened out by images that were read; without any, not at all."""
    split = split_of(sweep, folder, check=False, unreadable="skip")
    first = split_of(sweep, folder).data["image"]
    for row in np.random.default_rng(13).permutation(13)[:3]:  # the first batch, in the order of the cache
        Path(first[int(row)]["path"]).write_bytes(b"no image")
    cache = cached(sweep, split, tmp_path / "tokens", encoding="int8")
    assert len(cache) == 10
    assert all(t.patches.isfinite().all() for t in cache.__getitems__(list(range(10)))["tokens"].values())


def test_a_damaged_memory_is_looked_up_again(sweep, folder):
    """Whatever became of the file, the images are read instead."""
    expected = split_of(sweep, folder, check=False).content()
    for path in (Path(datasets.config.HF_DATASETS_CACHE) / "image-content").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:30])
    assert np.array_equal(split_of(sweep, folder, check=False).content(), expected)


def looked_at(folder: str) -> tuple[list[int], list[int]]:
    data, seen = load_split(folder, "train"), []
    encoded = data.cast_column("image", datasets.Image(decode=False))
    found = find_content(encoded, "image", lambda row, cell: seen.append(row), "train")
    return found.digests.tolist(), sorted(seen)


def test_processes_share_the_look(folder):
    """Each image is looked at by one process; all know all hashes."""
    found = on_processes(2, looked_at, str(folder))
    assert sorted(row for _, seen in found for row in seen) == list(range(13))
    assert found[0][0] == found[1][0] == looked_at(str(folder))[0]
    assert looked_at(str(folder))[1] == []  # remembered
