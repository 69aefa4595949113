"""What every probe can do, over several backbones and all poolings: the checklist of transformers, on our model."""

import pytest
import torch
from matrix import save

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.poolings import POOLINGS
from tiers import mostly_slow

BACKBONES = ["vit", "dinov2_with_registers", "siglip_vision_model", "swin", "convnextv2"]
LABELS = ["a", "b", "c"]
OPTIONS = {"ep": {"num_queries": 4}, "aim": {"num_attention_heads": 4}, "jepa": {"num_attention_heads": 4}}
TOKENS = {"alf": ("cls@all", "mean@all"), "weighted": ("mean@all",)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


def probe_on(folder, pooling="ep", **options):
    torch.manual_seed(0)
    head = HeadConfig(pooling, OPTIONS.get(pooling, {}), tokens=TOKENS.get(pooling, ("patches",)))
    return ProbeForImageClassification.from_backbone(folder, head, labels=LABELS, **options).eval()


def pixels_of(probe, count=5):
    return torch.randn(count, 3, *probe.backbone.geometry.image_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", BACKBONES)
def test_over_backbones(name, folders, tmp_path):
    """Deterministic; alone as in a batch; kernels and half precision agree; saved is loaded, tensors are untied."""
    probe = probe_on(folders(name))
    pixels = pixels_of(probe)
    logits = probe(pixels).logits
    assert torch.equal(logits, probe(pixels).logits)
    one_by_one = torch.cat([probe(image[None]).logits for image in pixels])
    torch.testing.assert_close(one_by_one, logits, atol=1e-5, rtol=1e-4)
    eager = probe_on(folders(name), attn_implementation="eager")
    eager.head.load_state_dict(probe.head.state_dict())
    torch.testing.assert_close(eager(pixels).logits, logits, atol=1e-4, rtol=1e-3)
    half = probe_on(folders(name), dtype=torch.bfloat16)
    half.head.load_state_dict(probe.head.state_dict())
    assert half(pixels).logits.dtype == torch.float32
    torch.testing.assert_close(half(pixels).logits, logits, atol=0.3, rtol=0.1)
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(pixels).logits, logits)
    pointers = [p.data_ptr() for p in loaded.parameters()]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("pooling", mostly_slow(POOLINGS, ["ep", "alf", "abmilp", "clip"]))
def test_over_poolings(pooling, folders, tmp_path):
    """Every head is saved, loaded, trained for a step, and exported with any number of images."""
    probe = probe_on(folders("vit"), pooling)
    pixels = pixels_of(probe)
    logits = probe(pixels).logits
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(pixels).logits, logits)
    exported = torch.export.export(
        loaded, (pixels,), dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}}, strict=False
    )
    torch.testing.assert_close(exported.module()(pixels[:2])["logits"], logits[:2], atol=1e-5, rtol=1e-4)
    loaded.train()
    loaded(pixels, labels=torch.tensor([0, 1, 2, 0, 1])).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in loaded.parameters())
