"""A backbone of one's own: everything works on it that works on one of transformers, or is refused by name."""

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import ViTImageProcessorPil

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep, ProbeTrainer
from attentive_probes import ProbeTrainingArguments as Arguments
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.token_cache import CacheOptions
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.references import Reference
from attentive_probes.experiments.steps.add_references import add_references
from attentive_probes.hub.model_card import model_card
from attentive_probes.hub.remote_code import add_remote_code
from attentive_probes.tokens import TokenLayout, Tokens
from tiny import SIZE, image_dataset

HEAD = HeadConfig("ep", {"num_queries": 4}, tokens=("patches", "mean@early"))


class Encoder(nn.Module):
    """Two convolutions; a class token that is their average; two taps of different widths."""

    image_size = (SIZE, SIZE)

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.early, self.late = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 32, 1)
        self.dropout = nn.Dropout(0.5)

    def tokens(self, pixel_values):
        early = self.early(pixel_values).relu()
        late = self.dropout(self.late(early)).flatten(2).mT
        with_cls = torch.cat([late.mean(1, keepdim=True), late], dim=1)
        grid = (SIZE // 4, SIZE // 4)
        return {"last": TokenLayout(32, 1, 0, grid).split(with_cls), "early": TokenLayout(16, 0, 0, grid).split(early)}


def processor():
    return ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})


def probe_on(module, head=HEAD, **options):
    torch.manual_seed(0)
    options = {"num_labels": 3, "image_processor": processor(), **options}
    return ProbeForImageClassification.from_backbone(module, head, **options).eval()


def test_saved_with_its_head_alone_and_loaded_with_the_module(tmp_path):
    """The same logits after loading with `backbone=`; without it, or with other weights, an error says what to pass."""
    probe, pixels = probe_on(Encoder()), torch.randn(2, 3, SIZE, SIZE)
    assert probe.config.backbone_config is None and not any(p.requires_grad for p in probe.backbone.parameters())
    assert not probe.train().backbone.model.dropout.training
    probe.eval().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 20_000
    loaded = ProbeForImageClassification.from_pretrained(tmp_path, backbone=Encoder()).eval()
    torch.testing.assert_close(loaded(pixels).logits, probe(pixels).logits)
    assert loaded.image_processor is not None
    with pytest.raises(ValueError, match=r"test_own_backbone.Encoder; pass the module: .*backbone=module"):
        ProbeForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="have the fingerprint"):
        ProbeForImageClassification.from_pretrained(tmp_path, backbone=Encoder(seed=1))

    class Wider(Encoder):
        def tokens(self, pixel_values):
            return {tap: Tokens(*kinds[:3], kinds.grid) for tap, kinds in super().tokens(pixel_values).items()} | {
                "more": super().tokens(pixel_values)["early"]
            }

    with pytest.raises(ValueError, match="The probe reads tokens laid out as"):
        ProbeForImageClassification.from_pretrained(tmp_path, backbone=Wider())


def test_trained_scored_and_cached(tmp_path):
    """A sweep trains on images and on cached tokens alike; references work; results and card name the class."""
    train, validation = image_dataset(48), image_dataset(24, seed=1)
    heads = {"ep": HeadRun(HEAD), "gap": HeadRun(HeadConfig("mean", tokens=("mean@all",)))}
    results = {}
    for tokens in ("online", "cached"):
        sweep = ProbeSweep.from_backbone(Encoder(), heads, num_labels=3, image_processor=processor())
        arguments = Arguments(str(tmp_path / tokens), num_train_epochs=8, batch_size=16, learning_rate=0.05)
        splits = {"train": train, "validation": validation}
        trainer = ProbeTrainer(sweep, arguments, train, validation, augmentation=None)
        if tokens == "cached":
            readings = [*sweep.readings, Reference().head.reading]
            options = CacheOptions(folder=str(tmp_path / "tokens"), encoding="float32")
            opened = {name: trainer.open_split(name, split) for name, split in splits.items()}
            splits = {
                name: build_token_cache(sweep.backbone, split, readings, processor(), options)
                for name, split in opened.items()
            }
            trainer = ProbeTrainer(sweep, arguments, splits["train"], splits["validation"])
        results[tokens] = trainer.train()
    assert results["online"].best.validation["top1"] == results["cached"].best.validation["top1"] > 90
    add_references({"knn": Reference(k=[5])}, trainer, {**splits, "test": None})
    assert trainer.results.references[0].validation > 60
    assert results["cached"].backbone["name"].endswith("test_own_backbone.Encoder")
    card = model_card(trainer.results, "ep", trainer.probe("ep").config)
    assert 'from_pretrained("<repository>", backbone=module)' in card and 'pipeline("image' not in card
    metrics = evaluate_probe(trainer.probe("ep"), validation, ImageOptions())
    assert metrics["top1"] == trainer.results.head("ep").validation["top1"]


def test_another_module_is_another_cache(tmp_path):
    """A cache is known by the weights of the module, and is not read for another one."""
    split = None
    folders = []
    for seed in (0, 1, 0):
        sweep = ProbeSweep.from_backbone(
            Encoder(seed), {"ep": HeadRun(HEAD)}, num_labels=3, image_processor=processor()
        )
        arguments = Arguments(str(tmp_path / "run"))
        data = image_dataset(16)
        split = ProbeTrainer(sweep, arguments, data, data).run.train_split
        options = CacheOptions(folder=str(tmp_path / "tokens"))
        cache = build_token_cache(sweep.backbone, split, sweep.readings, processor(), options)
        folders.append(cache.store.folder)
    assert folders[0] == folders[2] != folders[1]
    with pytest.raises(ValueError, match="built with other weights"):
        cache.check(probe_on(Encoder(1)).backbone, sweep.readings)


def test_what_cannot_be_done_is_refused(tmp_path):
    """An adapter, saving the module, and letting code travel: each is a sentence, before anything is written."""
    with pytest.raises(ValueError, match="takes no adapter"):
        probe_on(Encoder(), lora=LoraConfig(target_modules=["late"]))
    probe = probe_on(Encoder())
    with pytest.raises(ValueError, match="cannot travel"):
        add_remote_code(probe)
    probe.config.self_contained = True
    with pytest.raises(ValueError, match="is not saved with a probe"):
        probe.save_pretrained(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="no revision"):
        probe_on(Encoder(), revision="main")
    with pytest.raises(ValueError, match="no image processor|without a usable image processor"):
        ProbeTrainer(
            probe_on(Encoder(), image_processor=None), Arguments(str(tmp_path)), image_dataset(8), image_dataset(8)
        )


def _gives(value):
    module = Encoder()
    module.tokens = lambda pixels: value(pixels) if callable(value) else value
    return module


NOTHING = torch.zeros(2, 0, 8)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(3, 3), "Linear is no backbone: give its class an attribute image_size"),
        (_gives(torch.zeros(2, 4, 8)), "gives a Tensor; it must give Tokens"),
        (_gives({"early": Tokens(NOTHING, NOTHING, torch.zeros(2, 4, 8), (2, 2))}), "one must be 'last'"),
        (_gives(Tokens(NOTHING, NOTHING, torch.zeros(2, 4, 8), (2, 3))), r"4 patches for a grid of \(2, 3\)"),
        (_gives(Tokens(NOTHING, NOTHING, torch.zeros(1, 4, 8), (2, 2))), r"each must be \(2, T, D\)"),
        (_gives(lambda pixels: 1 / 0), "fails on images of the shape"),
    ],
)
def test_modules_that_give_no_tokens(module, message):
    """What is wrong with a module is said when it is wrapped."""
    with pytest.raises(ValueError, match=message):
        probe_on(module)
