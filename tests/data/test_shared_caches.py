"""What a cache is known by, and what it refuses to hold."""

import json
import math
import shutil

import pytest
import torch
from test_token_cache import LABELS, RUNS, build, count_images, split_of

from attentive_probes import ProbeSweep
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_split
from attentive_probes.data.store.hub_cache import push_token_cache
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.files import fingerprint
from attentive_probes.problems.label_table import LabelTable
from colours import class_folders


@pytest.fixture
def sweep(tiny_backbone):
    return ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, labels=LABELS)


@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_parts_orders_and_labels_share_a_cache(sweep, tmp_path, keep, monkeypatch):
    """Rows of a cached split, in any order and with other labels, are read from its cache; one more image is not."""
    split = split_of(sweep)
    whole = build(sweep, tmp_path, split)
    seen = count_images(monkeypatch)
    rows = [17, 3, 4, 0, 3]
    part = split_of(sweep)
    part.data, part.labels, part._content = part.data.select(rows), 2 - part.labels[rows], part.content()[rows]
    cache = build(sweep, tmp_path, part, keep=keep)
    assert seen == [] and len(cache) == 5
    assert cache.labels.tolist() == part.labels.tolist()
    for tap, tokens in cache.__getitems__([1, 4, 0])["tokens"].items():
        expected = whole.__getitems__([3, 3, 17])["tokens"][tap]
        assert torch.equal(tokens.cls, expected.cls) and torch.equal(tokens.patches, expected.patches)
    build(sweep, tmp_path, split_of(sweep, 21))
    assert sum(seen) > 0


def test_images_are_known_by_their_content(sweep, tmp_path, monkeypatch):
    """A copy of a class folder, elsewhere and of another day, finds the cache; so does an unchecked one."""
    class_folders(tmp_path / "one", {"a": (0, 1, 2), "b": (3, 4), "c": (5,)})
    shutil.copytree(tmp_path / "one", tmp_path / "far" / "two", copy_function=shutil.copy)
    encoder = LabelEncoder(LabelTable.of_names(("a", "b", "c")), "single_label_classification")
    splits = [
        ImageSplit("train", load_split(str(folder), "train"), ImageOptions(check=check), encoder)
        for folder, check in ((tmp_path / "one", True), (tmp_path / "far" / "two", True), (tmp_path / "one", False))
    ]
    first = build(sweep, tmp_path / "tokens", splits[0])
    seen = count_images(monkeypatch)
    for split in splits[1:]:
        assert build(sweep, tmp_path / "tokens", split).store.folder == first.store.folder
    assert seen == []


def test_weights_are_hashed_once(sweep, tmp_path, monkeypatch):
    """However many caches and checks; a weight that changed is hashed again."""
    counted, original = [], fingerprint._digest
    monkeypatch.setattr(fingerprint, "_digest", lambda tensor: counted.append(1) or original(tensor))
    for seed in (0, 1):
        build(sweep, tmp_path, split_of(sweep, seed=seed)).check(sweep.backbone, sweep.readings)
    sweep.backbone.fingerprint()
    assert len(counted) <= len(sweep.backbone.state_dict())
    with torch.no_grad():
        next(sweep.backbone.parameters()).add_(1)
    before = sweep.backbone.fingerprint()
    assert len(counted) <= len(sweep.backbone.state_dict()) + 1 and before == sweep.backbone.fingerprint()


@pytest.mark.parametrize(
    ("encoding", "dtype", "value", "message"),
    [
        ("float16", torch.float32, 1e5, "1 of .* beyond 65504.*bfloat16 or float32"),
        ("float16", torch.float32, float("nan"), "tokens that are not finite for the image in row"),
        ("auto", torch.float32, 1e5, "beyond 65504, the largest of float16"),
        ("int8", torch.float32, float("inf"), "not finite"),
        ("auto", torch.bfloat16, 1e5, None),
        ("bfloat16", torch.float32, 1e5, None),
    ],
)
def test_numbers_that_do_not_fit_stop_the_build(tiny_backbone, tmp_path, encoding, dtype, value, message):
    """In any shard, beyond the sample too, with the way out; a backbone in bfloat16 is cached in its own range."""
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), {"mean": RUNS["mean"]}, labels=LABELS, dtype=dtype)
    original = sweep.backbone.read

    def read(pixels, layouts, receive):
        def poisoned(tap, tokens):
            if len(pixels) == 4:  # the last batch of the last shard
                tokens.patches[2, 1, 0] = value
            receive(tap, tokens)

        original(pixels, layouts, poisoned)

    sweep.backbone.read = read
    if message is None:
        cache = build(sweep, tmp_path, encoding=encoding)
        assert cache.manifest.encoding == "bfloat16"
        return
    with pytest.raises(ValueError, match=message):
        build(sweep, tmp_path, encoding=encoding)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir() if "shard" in path.name) == ["shard-000000", "shard-000001"]


def test_a_cache_that_overflowed_is_not_read(sweep, tmp_path):
    """One that an earlier release wrote without a word is refused, with the way out."""
    folder = build(sweep, tmp_path).store.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["error"]["patches@last"] = math.inf
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"\['patches@last'\] that overflowed; remove it"):
        TokenCache(folder)


def test_a_damaged_neighbour_is_passed_over(sweep, tmp_path, caplog):
    """Caches beside the one that is looked for may be broken."""
    whole = build(sweep, tmp_path)
    (tmp_path / "aaa").mkdir()
    (tmp_path / "aaa" / "manifest.json").write_text("{ no JSON")
    for name, content in (("bbb", "[1]"), ("ccc", '{"schema_version": 1, "unknown": 0}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(content)
    shutil.rmtree(whole.store.folder / "shard-000001")
    part = split_of(sweep, 5)
    assert len(build(sweep, tmp_path, part)) == 5
    assert caplog.text.count("Passed over") == 4


def test_a_part_is_not_pushed(sweep, tmp_path):
    """The whole cache would go: it is named."""
    build(sweep, tmp_path)
    with pytest.raises(ValueError, match="part of the one in .*; push that one"):
        push_token_cache(build(sweep, tmp_path, split_of(sweep, 5)), "me/tokens")


def test_weights_that_are_not_in_memory_are_known_by_name(sweep, tmp_path, monkeypatch):
    """An offloaded backbone is cached all the same, by its name and commit; another one has another cache."""
    monkeypatch.setattr(type(sweep.backbone), "hash_weights", lambda self: None)
    cache = build(sweep, tmp_path)
    cache.check(sweep.backbone, sweep.readings)
    assert build(sweep, tmp_path).store.folder == cache.store.folder
    sweep.backbone.model.config._name_or_path = "another"
    assert build(sweep, tmp_path).store.folder != cache.store.folder
