"""One image whose tokens are no finite numbers does not spoil a run: it is named, refused or left out, and counted."""

import math

import pytest
import torch

from attentive_probes import (
    HeadConfig,
    HeadRun,
    ProbeForImageClassification,
    ProbeSweep,
    ProbeTrainer,
    ProbeTrainingArguments,
)
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.token_cache import CacheOptions
from attentive_probes.evaluation.prediction import predict_files
from attentive_probes.serving.heads import answer_of
from tiny import image_dataset, image_split

LABELS = ["band 0", "band 1", "band 2"]
RUNS = {
    "mean": HeadRun(HeadConfig("mean"), learning_rate=0.05),
    "ep": HeadRun(HeadConfig("ep", {"num_queries": 2}, tokens=("cls", "patches")), learning_rate=0.05),
}


def spoiled(sweep, dataset, row, value, monkeypatch):
    """The backbone gives `value` somewhere in the tokens of one image of a dataset, whenever it comes."""
    pixels = sweep.image_processor([dataset[row]["image"]], return_tensors="pt")["pixel_values"]
    original = sweep.backbone.forward

    def forward(images, needs=("last",)):
        tokens = original(images, needs)
        shown = images if images.is_floating_point() else sweep.backbone.normalization(images)
        hit = ((shown - pixels).abs().amax((1, 2, 3)) < 1e-3).nonzero().flatten()
        for of_tap in tokens.values():
            of_tap.patches[hit, -1, 0] = value
        return tokens

    monkeypatch.setattr(sweep.backbone, "forward", forward)


def trainer_of(folder, backbone, spoil, value, monkeypatch, policy="raise", cached=False):
    """A trainer, and a test split, in one of whose splits an image is spoiled."""
    sweep = ProbeSweep.from_backbone(backbone, RUNS, labels=LABELS)
    data = {name: image_dataset(20, seed=seed) for seed, name in enumerate(("train", "validation", "test"))}
    spoiled(sweep, data[spoil], 7, value, monkeypatch)
    images = ImageOptions(unreadable=policy)
    splits = data
    if cached:
        options = CacheOptions(folder=str(folder / "tokens"), shard_size=8, batch_size=5)
        splits = {}
        for seed, name in enumerate(data):
            split = image_split(sweep.config, 20, seed=seed, options=images, name=name)
            splits[name] = build_token_cache(sweep.backbone, split, sweep.readings, sweep.image_processor, options)
    arguments = ProbeTrainingArguments(str(folder / "run"), num_train_epochs=2, batch_size=5)
    return ProbeTrainer(sweep, arguments, splits["train"], splits["validation"], images=images), splits["test"]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("spoil", ["train", "validation", "test"])
def test_the_image_is_named(spoil, cached, value, tiny_backbone, tmp_path, monkeypatch):
    """Under the policy `raise`, the run stops at it, and says which it is and what can be done."""
    match = rf"not finite for the image in row 7 of the {spoil} split.*data\.images\.unreadable=skip"
    with pytest.raises(ValueError, match=match):
        trainer, test = trainer_of(tmp_path, tiny_backbone("vit"), spoil, value, monkeypatch, cached=cached)
        trainer.train()
        trainer.test(test)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("spoil", ["train", "validation", "test"])
def test_the_image_is_left_out(spoil, cached, tiny_backbone, tmp_path, monkeypatch, caplog):
    """Under the policy `skip`, everything else is as good as ever, and the image is counted."""
    arguments = (tmp_path, tiny_backbone("vit"), spoil, math.nan, monkeypatch, "skip", cached)
    trainer, test = trainer_of(*arguments)
    results = trainer.train()
    results = trainer.test(test)
    assert caplog.text.count("row 7 of the") == 1
    for head in results.heads:
        assert head.diverged is None and math.isfinite(head.validation["loss"]) and math.isfinite(head.test["loss"])
        assert all(torch.isfinite(t).all() for t in trainer.sweep.heads[head.name].state_dict().values())
    assert {name: sizes["unreadable"] for name, sizes in results.data.items()} == {
        name: int(name == spoil) for name in ("train", "validation", "test")
    }
    if spoil == "test":
        assert results.data["test"]["images"] == 19


def test_a_cache_that_leaves_it_out_is_no_secret(tiny_backbone, tmp_path, monkeypatch):
    """Built under `skip`, opened under `raise`: the image is named."""
    trainer_of(tmp_path, tiny_backbone("vit"), "train", math.nan, monkeypatch, "skip", True)
    with pytest.raises(ValueError, match="not finite for the image in row 7"):
        trainer_of(tmp_path, tiny_backbone("vit"), "train", math.nan, monkeypatch, "raise", True)


def test_a_precision_that_overflows_is_no_fault_of_images(tiny_backbone, tmp_path, monkeypatch):
    """If it is all images of a batch, the advice is another precision, and nothing is left out."""
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, labels=LABELS)
    original = sweep.backbone.forward

    def forward(images, needs=("last",)):
        tokens = original(images, needs)
        tokens["last"].patches.mul_(math.inf)
        return tokens

    monkeypatch.setattr(sweep.backbone, "forward", forward)
    arguments = ProbeTrainingArguments(str(tmp_path), num_train_epochs=1, batch_size=5)
    trainer = ProbeTrainer(
        sweep, arguments, image_dataset(20), image_dataset(20, seed=1), images=ImageOptions(unreadable="skip")
    )
    with pytest.raises(ValueError, match=r"all 5 images of a batch of the train split.*backbone\.dtype"):
        trainer.train()


def test_predictions_are_numbers(tiny_backbone, tmp_path, monkeypatch):
    """An image without finite scores is named by `predict`, or left out."""
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=LABELS)
    paths = []
    for row, example in enumerate(image_dataset(4)):
        paths.append(tmp_path / f"{row}.png")
        example["image"].save(paths[-1])
    original = probe.backbone.forward

    def forward(images, needs=("last",)):
        tokens = original(images, needs)
        tokens["last"].patches[2] = math.nan
        return tokens

    monkeypatch.setattr(probe.backbone, "forward", forward)
    with pytest.raises(ValueError, match=r"no finite scores for the image .*2\.png"):
        list(predict_files(probe, paths))
    found = list(predict_files(probe, paths, unreadable="skip"))
    assert [prediction.path for prediction in found] == [str(paths[i]) for i in (0, 1, 3)]
    assert all(math.isfinite(score) for prediction in found for score in prediction.scores)
    with pytest.raises(ValueError, match="no finite scores"):
        answer_of(probe, torch.tensor([0.0, math.nan, 1.0]))


def test_labels_of_a_cache_are_those_of_the_run(tiny_backbone, tmp_path, monkeypatch):
    """A cache of other classes is refused before anything is trained on it."""
    trainer, _ = trainer_of(tmp_path, tiny_backbone("vit"), "test", 0.0, monkeypatch, cached=True)
    cache = trainer.run.train_split
    cache.check_labels(3, "single_label_classification")
    for count, problem in ((2, "single_label_classification"), (3, "multi_label_classification")):
        with pytest.raises(ValueError, match="no targets of"):
            cache.check_labels(count, problem)
