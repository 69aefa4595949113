"""Caches that were damaged, that are built twice at one time, that do not fit."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.store import build_store
from attentive_probes.data.store import integrity as damage
from attentive_probes.data.store.integrity import VERIFIED
from attentive_probes.data.store.manifest import Manifest
from attentive_probes.data.store.shard_writer import ShardWriter
from attentive_probes.data.store.token_store import TokenStore
from attentive_probes.data.token_cache import CacheOptions, TokenCache
from attentive_probes.files.writing import NotWritten
from tiny import image_split

RUNS = {"ep": HeadRun(HeadConfig("ep", {"num_queries": 4}, tokens=("cls", "patches")))}
ROWS = list(range(20))


def build(backbone, folder, **options):
    sweep = ProbeSweep.from_backbone(backbone, RUNS, labels=["band 0", "band 1", "band 2"])
    split = image_split(sweep.config, 20)
    options = CacheOptions(**{"folder": str(folder), "shard_size": 8, "encoding": "int8", **options})
    return build_token_cache(sweep.backbone, split, sweep.readings, sweep.image_processor, options)


@pytest.fixture(scope="module")
def whole(tiny_backbone, tmp_path_factory):
    """A backbone, and the folder of a cache by it."""
    folder = tmp_path_factory.mktemp("whole")
    return tiny_backbone("vit"), build(tiny_backbone("vit"), folder).store.folder


@pytest.fixture
def copied(whole, tmp_path):
    """The backbone, and a copy of the cache."""
    backbone, folder = whole
    shutil.copytree(folder, tmp_path / "tokens" / folder.name)
    return backbone, tmp_path / "tokens" / folder.name


def content_of(folder):
    """All that the files hold."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != VERIFIED]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def flip(path, place=0.5, bit=0x40):
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= bit
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def grow(path):
    path.write_bytes(path.read_bytes() + b"x")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


DAMAGE = {
    "a bit of a shard": (lambda f: flip(f / "shard-000001" / "patches@last.bin"), "shard-000001/patches@last.bin"),
    "a bit of scales": (lambda f: flip(f / "shard-000002" / "cls@last.scale.bin"), "shard-000002/cls@last.scale.bin"),
    "a shard": (lambda f: shutil.rmtree(f / "shard-000001"), "1 of 3 are missing"),
    "a file": (lambda f: (f / "shard-000000" / "cls@last.bin").unlink(), "shard-000000/cls@last.bin"),
    "a cut file": (lambda f: cut(f / "shard-000000" / "patches@last.bin"), "holds 100 bytes, not"),
    "a longer file": (lambda f: grow(f / "shard-000000" / "cls@last.bin"), "bytes, not"),
    "a label": (lambda f: flip(f / "labels.npy", 0.9, 1), "labels.npy has another checksum"),
    "no labels": (lambda f: (f / "labels.npy").unlink(), "labels.npy"),
    "cut labels": (lambda f: cut(f / "labels.npy"), "labels.npy is damaged"),
    "fewer labels": (lambda f: np.save(f / "labels.npy", np.zeros(19, int)), "holds 19 labels, but there are 20"),
    "a hash": (lambda f: flip(f / "content.npy", 0.9), "content.npy"),
    "the spread": (lambda f: flip(f / "patches@last.spread.npy", 0.9, 4), "patches@last.spread.npy"),
    "a number": (lambda f: edit(f / "manifest.json", '"num_images": 20', '"num_images": 16'), "manifest.json is dam"),
    "an empty manifest": (lambda f: (f / "manifest.json").write_text(""), "manifest.json is damaged"),
    "half a manifest": (lambda f: cut(f / "manifest.json"), "manifest.json is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_named_and_computed_again(what, whole, copied):
    """A flipped bit, a lost file, a cut one: opening names it; the run that built the cache mends it, bit for bit."""
    backbone, folder = copied
    do, named = DAMAGE[what]
    do(folder)
    with pytest.raises(ValueError, match="damaged") as error:
        TokenCache(folder)
    assert named in str(error.value)
    cache = build(backbone, folder.parent)
    assert cache.store.folder == folder
    assert content_of(folder) == content_of(whole[1])


def test_damage_within_an_unfinished_build(whole, copied):
    """Without a manifest, shards are held against their own checksums."""
    backbone, folder = copied
    (folder / "manifest.json").unlink()
    flip(folder / "shard-000001" / "patches@last.bin")
    (folder / "shard-000002" / "checksums.json").unlink()
    build(backbone, folder.parent)
    assert content_of(folder) == content_of(whole[1])


def test_how_much_is_verified(copied, monkeypatch):
    """Files that look as they did are not read again, unless all are to be; sizes alone are looked at on request."""
    _, folder = copied
    read = []
    checksum_of = damage.checksum_of
    monkeypatch.setattr(damage, "checksum_of", lambda path: (read.append(path.name), checksum_of(path))[1])
    TokenCache(folder)
    assert len(read) == len(Manifest.read(folder / "manifest.json").files)
    read.clear()
    TokenCache(folder)
    assert read == []
    TokenCache(folder, verify="full")
    assert "labels.npy" in read
    read.clear()
    flip(folder / "shard-000001" / "patches@last.bin")
    TokenCache(folder, verify="never")
    assert read == []
    with pytest.raises(ValueError, match="another checksum"):
        TokenCache(folder)
    assert read == ["patches@last.bin"]
    with pytest.raises(ValueError, match="Did you mean 'full'"):
        CacheOptions(verify="ful")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "shard-000000/../x", ".hidden"])
def test_a_manifest_names_files_of_its_folder(name, copied):
    """What lies elsewhere is not even looked at."""
    _, folder = copied
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"]
    manifest["files"][name] = [3, "0"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged.*not part of a token cache"):
        TokenCache(folder)


def test_caches_of_before_have_no_checksums(copied):
    """They are read all the same."""
    _, folder = copied
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("files", "checksum"):
        manifest.pop(key)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert len(TokenCache(folder)) == 20


def build_in_process(backbone, folder, gate, found):
    """Wait for the others, build, and report what the cache holds."""
    torch.set_num_threads(1)
    gate.wait()
    try:
        cache = build(backbone, folder, shard_size=2, batch_size=1)
        tokens = cache.__getitems__(ROWS)["tokens"]["last"]
        found.put(hash(tokens.patches.numpy().tobytes()) if len(cache) == 20 else "incomplete")
    except BaseException as error:
        found.put(repr(error))


def rounds_of_four(backbone, folder, rounds):
    """What four processes report that build one cache at one time, round by round."""
    context = multiprocessing.get_context("fork")
    for number in range(rounds):
        gate, found = context.Barrier(4), context.Queue()
        arguments = (backbone, folder / str(number), gate, found)
        processes = [context.Process(target=build_in_process, args=arguments) for _ in range(4)]
        for process in processes:
            process.start()
        yield {found.get(timeout=120) for _ in processes}
        for process in processes:
            process.join()


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_four_processes_build_one_cache(rounds, whole, tmp_path):
    """All of them end with the same tokens, and nothing is left over."""
    backbone, _ = whole
    expected = build(backbone, tmp_path / "alone", shard_size=2, batch_size=1)
    tokens = expected.__getitems__(ROWS)["tokens"]["last"].patches.numpy().tobytes()
    for answers in rounds_of_four(backbone, tmp_path, rounds):
        assert answers == {hash(tokens)}
    assert not list(tmp_path.rglob("*.partial*")) and not list(tmp_path.rglob("shard-*.lock"))


def test_work_is_shared_and_survives_the_other(whole, tmp_path, monkeypatch):
    """A shard that another process is writing is waited for; when that one dies, it is taken over."""
    backbone, _ = whole
    cache = build(backbone, tmp_path / "once")
    store = cache.store
    folder = tmp_path / "tokens" / store.folder.name
    shutil.copytree(store.folder, folder)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "shard-000001")
    held = ShardWriter.claim(TokenStore(folder, store.manifest), 1)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            held._lock.release()  # as the kernel does for the dead

    monkeypatch.setattr(build_store.time, "sleep", sleep)
    again = build(backbone, folder.parent)
    assert again.store.folder == folder and len(looks) == 3
    assert content_of(folder) == content_of(store.folder)


@pytest.mark.parametrize("is_full", [lambda calls, name: len(calls) > 8, lambda calls, name: name == "patches@last"])
def test_a_full_disk_is_a_sentence(is_full, whole, tmp_path, monkeypatch):
    """What cannot be written is named; of a batch that was written in part nothing counts; the next build goes on."""
    backbone, folder = whole
    original, calls = ShardWriter._write, []

    def full(self, name, content):
        calls.append(name)
        if is_full(calls, name):
            raise NotWritten(self.folder / name, OSError(28, "No space left on device"))
        original(self, name, content)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="cannot be written: the disk is full"):
        patch.setattr(ShardWriter, "_write", full)
        build(backbone, tmp_path)
    build(backbone, tmp_path)
    assert content_of(tmp_path / folder.name) == content_of(folder)
