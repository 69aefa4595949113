import shutil

import numpy as np
import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data import build_cache
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.store import build_store
from attentive_probes.data.store.block_shuffle import BlockShuffle
from attentive_probes.data.store.encoding import ENCODINGS, channel_spread, decode, encode, relative_error
from attentive_probes.data.store.shard_writer import ShardWriter
from attentive_probes.data.token_cache import CacheOptions, TokenCache
from attentive_probes.files import disk_space as disk
from tiny import image_split

LABELS = ["band 0", "band 1", "band 2"]
RUNS = {
    "ep": HeadRun(HeadConfig("ep", {"num_queries": 4}), learning_rate=0.05),
    "mean": HeadRun(HeadConfig("mean"), learning_rate=0.05),
    "cls": HeadRun(HeadConfig("mean", tokens=("cls",)), learning_rate=0.05),
    "alf": HeadRun(HeadConfig("alf", tokens=("cls@all", "mean@all"), token_norm="l2")),
}


@pytest.fixture
def sweep(tiny_backbone):
    return ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, labels=LABELS)


def split_of(sweep, num_images=20, seed=0):
    return image_split(sweep.config, num_images, seed)


def build(sweep, folder, split=None, augmentation=None, **options):
    options = CacheOptions(str(folder), **{"encoding": "float32", "shard_size": 8, "batch_size": 5, **options})
    return build_token_cache(
        sweep.backbone,
        split or split_of(sweep),
        sweep.readings,
        sweep.image_processor,
        options,
        augmentation=augmentation,
    )


def pixels_of(sweep, split, indices):
    images = [split[i].image for i in indices]
    return sweep.image_processor(images, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize(
    ("encoding", "error"), [("float32", 0), ("float16", 3e-4), ("bfloat16", 3e-3), ("int8", 1.2e-2)]
)
def test_encodings(encoding, error):
    """What is stored comes back within the precision of its type; int8 evens out channels of very different size."""
    tokens = torch.randn(32, 7, 48) * torch.logspace(-2, 2, 48)
    spread = channel_spread(tokens)
    arrays = {key: torch.from_numpy(array) for key, array in encode(tokens, encoding, spread).items()}
    found = decode(arrays, encoding, spread if encoding == "int8" else None).float()
    per_channel = (found - tokens).norm(dim=(0, 1)) / tokens.norm(dim=(0, 1))
    assert per_channel.max() <= error
    assert relative_error(tokens, encoding, spread) == pytest.approx(
        ((found - tokens).norm() / tokens.norm()).item(), abs=1e-6
    )
    zeros = {key: torch.from_numpy(array) for key, array in encode(torch.zeros(1, 2, 48), encoding, spread).items()}
    assert decode(zeros, encoding, None).float().abs().max() == 0


@pytest.mark.parametrize("keep", ["disk", "memory", "device"])
def test_cached_tokens_are_those_of_the_backbone(sweep, tmp_path, keep):
    """Any rows in any order, wherever the tokens are kept, give the outputs of the images; a mean needs no storage."""
    split = split_of(sweep)
    cache = build(sweep, tmp_path, split, keep=keep)
    assert list(cache.manifest.items) == [
        "cls@last", "patches@last",
        "cls@premlp:1", "mean@premlp:1", "cls@premlp:2", "mean@premlp:2", "cls@final", "mean@final",
    ]  # fmt: skip
    indices = [19, 3, 8, 7, 3]
    batch = cache.__getitems__(indices)
    assert batch["labels"].tolist() == [split[i].label for i in indices]
    sweep.eval()
    online, cached = sweep(pixels_of(sweep, split, indices)), sweep(tokens=batch["tokens"])
    for name in RUNS:
        assert torch.allclose(online[name].logits, cached[name].logits, atol=1e-5), name


def train(sweep, folder, train_data, validation_data, augmentation=None):
    arguments = ProbeTrainingArguments(str(folder), num_train_epochs=4, batch_size=8, eval_batch_size=16)
    return ProbeTrainer(sweep, arguments, train_data, validation_data, augmentation=augmentation).train()


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_cached_training_equals_online_training(tiny_backbone, tmp_path, augmentation):
    """Same order, same views, same losses: a cache changes the time and nothing else."""
    histories = []
    for cached in (False, True):
        sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, labels=LABELS)
        splits = [split_of(sweep), split_of(sweep, 12, seed=1)]
        if cached:
            views = 4 if augmentation else 1
            splits = [
                build(sweep, tmp_path / "tokens", splits[0], augmentation, views=views),
                build(sweep, tmp_path / "tokens", splits[1]),
            ]
        results = train(sweep, tmp_path / f"run-{cached}", *splits, augmentation)
        histories.append([entry["train_loss"] for head in results.heads for entry in head.history])
        assert results.data["train"]["images"] == 20
    assert histories[0] == pytest.approx(histories[1], abs=1e-4)


def count_images(monkeypatch):
    """How many images pass through the backbone while tokens are cached."""
    seen = []
    original = build_cache.Backbone.forward

    def forward(self, pixel_values, taps=("last",)):
        seen.append(len(pixel_values))
        return original(self, pixel_values, taps)

    monkeypatch.setattr(build_cache.Backbone, "forward", forward)
    return seen


def test_a_complete_cache_is_reused(sweep, tmp_path, monkeypatch):
    """The second build computes nothing."""
    build(sweep, tmp_path)
    seen = count_images(monkeypatch)
    build(sweep, tmp_path)
    assert seen == []


@pytest.mark.parametrize(("batches", "left"), [(3, 7), (4, 4)])
def test_a_killed_build_goes_on(sweep, tmp_path, monkeypatch, batches, left):
    """Killed within or between shards of eight: what was written stays, the rest is computed, to the same tokens."""
    whole = build(sweep, tmp_path / "whole")
    original, calls = ShardWriter.add, []

    def killed(self, batch):
        calls.append(batch)
        if len(calls) > batches:
            raise KeyboardInterrupt
        original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardWriter, "add", killed)
        build(sweep, tmp_path / "killed")
    (folder,) = (tmp_path / "killed").iterdir()
    with pytest.raises(ValueError, match="no complete token cache"):
        TokenCache(folder)
    seen = count_images(monkeypatch)
    cache = build(sweep, tmp_path / "killed")
    assert sum(seen) == 5 + left  # one batch as a sample, then what is missing
    assert not list(folder.glob("*partial*")) and not list(folder.rglob("progress.json"))
    rows = list(range(20))
    for tap, tokens in cache.__getitems__(rows)["tokens"].items():
        assert torch.equal(tokens.cls, whole.__getitems__(rows)["tokens"][tap].cls)


def test_nothing_stale_is_read(sweep, tmp_path, tiny_backbone):
    """Other images, weights, encoding, views or processor: another cache each time; fewer readings find the same."""
    split = split_of(sweep)
    folders = {build(sweep, tmp_path, split).store.folder}
    other_images = split_of(sweep, seed=7)
    for options in (
        {"split": other_images}, {"encoding": "float16"},
        {"views": 2, "augmentation": Augmentation()}, {"views": 2, "augmentation": Augmentation(flip=False)},
    ):  # fmt: skip
        folders.add(build(sweep, tmp_path, **options).store.folder)
    sweep.image_processor.image_mean = [0.1, 0.2, 0.3]
    folders.add(build(sweep, tmp_path, split).store.folder)
    with torch.no_grad():
        next(sweep.backbone.parameters())[0] += 1e-3
    folders.add(build(sweep, tmp_path, split).store.folder)
    assert len(folders) == 7
    fewer = ProbeSweep.from_backbone(tiny_backbone("vit"), {"mean": RUNS["mean"]}, labels=LABELS)
    cache = build(fewer, tmp_path)
    assert cache.store.folder in folders and cache.items == ["patches@last"]
    assert set(cache.__getitems__([0])["tokens"]) == {"last"}
    with pytest.raises(ValueError, match=r"holds \['patches@last'\], not 'cls@last'; build it for these heads"):
        cache.check(fewer.backbone, sweep.readings)
    cache.check(fewer.backbone, [HeadConfig(tokens=("mean",)).reading])


def test_a_damaged_cache_is_named(sweep, tmp_path):
    """A shard that was deleted is missed before anything is read."""
    folder = build(sweep, tmp_path).store.folder
    shutil.rmtree(folder / "shard-000001")
    with pytest.raises(ValueError, match="incomplete: 1 of 3 are missing"):
        TokenCache(folder)


def test_space_is_checked_first(sweep, tmp_path, monkeypatch):
    """Too little disk is an error before the first image, with the numbers."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: replace_free(usage))
    seen = count_images(monkeypatch)
    with pytest.raises(ValueError, match=r"GB are to be written to .* are free there"):
        build(sweep, tmp_path)
    assert seen == []


def replace_free(usage):
    return usage._replace(free=10)


def test_useless_options_are_refused(sweep, tmp_path):
    """Views without augmentation, unknown names, empty shards."""
    with pytest.raises(ValueError, match="would be equal without augmentation"):
        build(sweep, tmp_path, views=3)
    for options in ({"encoding": "float64"}, {"keep": "tape"}, {"shard_size": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            CacheOptions(**options)


def test_time_is_estimated_and_a_fixed_crop_is_warned_of(sweep, tmp_path, caplog, monkeypatch):
    """Before long work the log says how long it takes; one augmented view for all epochs is worth a warning."""
    monkeypatch.setattr(build_store, "WORTH_SAYING", 0.0)
    with caplog.at_level("INFO"):
        build(sweep, tmp_path, augmentation=Augmentation())
    messages = [record.getMessage() for record in caplog.records]
    assert any("takes about 0 minutes" in message for message in messages)
    assert any("every epoch sees the same random crop" in message for message in messages)
    caplog.clear()
    build(sweep, tmp_path, augmentation=Augmentation(), views=2)
    build(sweep, tmp_path)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_error_and_size_are_reported(sweep, tmp_path, encoding):
    """The manifest names the relative error of every item, and bytes on disk are those that were announced."""
    cache = build(sweep, tmp_path, encoding=encoding)
    assert set(cache.manifest.error) == set(cache.manifest.items)
    assert all(0 <= error < 0.02 for error in cache.manifest.error.values())
    assert (max(cache.manifest.error.values()) > 0) == (encoding != "float32")
    size = sum(path.stat().st_size for path in cache.store.folder.rglob("*.bin"))
    assert size == cache.manifest.bytes_per_row * cache.manifest.num_rows


def test_block_shuffle():
    """Every image once, another order each epoch, the same order again for the same epoch, in runs of blocks."""
    epoch = [1]
    sampler = BlockShuffle(1000, lambda: epoch[0], block_size=16, window=4)
    first = list(sampler)
    assert sorted(first) == list(range(1000)) and len(sampler) == 1000
    assert first == list(sampler)
    epoch[0] = 2
    assert first != list(sampler)
    assert len(set(np.array(first[:64]) // 16)) <= 5  # one window: four blocks, one of them perhaps short
