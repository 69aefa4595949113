"""Quantized backbones: the head stays as it is, caches and checks know what they are made of."""

import importlib.util

import pytest
import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.backbones.quantization import MODULES, QUANTIZATIONS, quantization_of
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.token_cache import CacheOptions
from tiny import image_dataset

pytestmark = pytest.mark.filterwarnings("ignore")  # of torchao and quanto, about themselves


def installed(name):
    try:
        return importlib.util.find_spec(MODULES[name.partition("-")[0]]) is not None
    except ImportError:
        return False


def needs(name):
    reason = "`make test-quantization` installs torchao and quanto apart and runs this; bitsandbytes wants a GPU"
    return pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason=reason))


NAMES = [needs(name) for name in ("torchao-int8", "quanto-int8")]


def new_probe(folder, **options):
    torch.manual_seed(0)
    return ProbeForImageClassification.from_backbone(folder, HeadConfig("mean"), num_labels=3, **options).eval()


@pytest.mark.parametrize("name", NAMES)
def test_the_backbone_is_quantized_and_the_head_is_not(name, tiny_backbone, tmp_path):
    """Named in `from_backbone` and `from_pretrained`: near the full answer; what is saved is the full probe."""
    full, pixels = new_probe(tiny_backbone("vit")), torch.randn(3, 3, 16, 16)
    full.save_pretrained(tmp_path / "full")
    loaded = ProbeForImageClassification.from_pretrained(tmp_path / "full", quantization_config=name).eval()
    for probe in (new_probe(tiny_backbone("vit"), quantization_config=name), loaded):
        assert probe.backbone.is_quantized and not full.backbone.is_quantized
        assert all(type(p) is torch.nn.Parameter and p.dtype == torch.float32 for p in probe.head.parameters())
        difference = (probe(pixels).logits - full(pixels).logits).abs().max()
        assert 0 < difference < 0.1 * full(pixels).logits.std()
        assert probe.config.backbone_fingerprint == full.config.backbone_fingerprint
        assert "quantization_config" not in probe.config.backbone_config.to_dict()
    loaded.save_pretrained(tmp_path / "again")
    again = ProbeForImageClassification.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(pixels).logits, full(pixels).logits)
    loaded.config.self_contained = True
    with pytest.raises(ValueError, match="Quantized weights are not saved"):
        loaded.save_pretrained(tmp_path / "refused")


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_are_found_although_quantized(name, tiny_backbone, tmp_path):
    """The check reads the tensors of the file."""
    probe = new_probe(tiny_backbone("vit"))
    probe.save_pretrained(tmp_path / "probe")
    with torch.no_grad():
        probe.backbone.model.layers[0].mlp.fc1.weight[0, 0] += 1e-4
    probe.backbone.model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="have the fingerprint"):
        ProbeForImageClassification.from_pretrained(
            tmp_path / "probe", backbone=str(tmp_path / "other"), quantization_config=name
        )


@pytest.mark.parametrize("name", NAMES)
def test_caches_of_quantized_tokens_are_their_own(name, tiny_backbone, tmp_path):
    """Full and quantized tokens lie in different folders; the same quantization finds its cache again."""
    folders = []
    for options in ({}, {"quantization_config": name}, {"quantization_config": name}):
        probe = new_probe(tiny_backbone("vit"), **options)
        split = ImageSplit("train", image_dataset(8), ImageOptions(), LabelEncoder.of_probe(probe.config))
        cache = build_token_cache(
            probe.backbone, split, [probe.head.reading], probe.image_processor, CacheOptions(str(tmp_path))
        )
        folders.append(cache.store.folder)
    assert folders[0] != folders[1] == folders[2]


def test_unknown_and_missing_quantizations_are_named(tiny_backbone):
    """The valid names, or the package to install."""
    with pytest.raises(ValueError, match="Unknown quantization 'int8'.*quanto-int8"):
        new_probe(tiny_backbone("vit"), quantization_config="int8")
    for name in QUANTIZATIONS:
        if not installed(name):
            with pytest.raises(ValueError, match="pip install"):
                quantization_of(name)
