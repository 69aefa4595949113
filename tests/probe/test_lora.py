"""Adapters on the backbone: what they train, how they travel, what they refuse."""

import pytest
import torch
from matrix import save
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model
from transformers import AutoModelForImageClassification, ViTModel

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.backbones import VisionBackbone, load_backbone_config
from attentive_probes.probe.lora import add_lora, load_lora

FAMILIES = [
    "vit",
    "beit",
    "dinov2_with_registers",
    "data2vec-vision",
    "clip_vision_model",
    "siglip_vision_model",
    "ijepa",
    "swin",
    "convnextv2",
    "hiera",
]
METHODS = [
    LoraConfig(r=4),
    LoraConfig(r=4, use_dora=True),
    IA3Config(),
    VeraConfig(r=4),
    LoraConfig(r=4, lora_dropout=0.3),
]
LABELS = ["a", "b", "c"]


def lora_probe(folder, lora=None, **options):
    lora = LoraConfig(r=4, init_lora_weights=False) if lora is None else lora
    return ProbeForImageClassification.from_backbone(folder, HeadConfig("mean"), labels=LABELS, lora=lora, **options)


def load_backbone_keys(folder):
    return ViTModel.from_pretrained(folder, add_pooling_layer=False).state_dict()


def pixels_of(probe, count=3):
    torch.manual_seed(1)
    channels = getattr(probe.backbone.model.config, "num_channels", 3)
    return torch.randn(count, channels, *probe.backbone.geometry.image_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_adapter_and_head_alone(family, tmp_path):
    """Ten families: all that is trained gets a gradient, nothing else has one, the backbone stays in evaluation."""
    probe = lora_probe(save(family, tmp_path / family), LoraConfig(r=4)).train()
    frozen = {name: p.clone() for name, p in probe.named_parameters() if not p.requires_grad}
    assert all(name.startswith("backbone.") for name in frozen)
    optimizer = torch.optim.AdamW([p for p in probe.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):  # LoRA starts with B = 0: the gradient of A comes after the first step
        optimizer.zero_grad()
        probe(pixels_of(probe), labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
    parameters = dict(probe.named_parameters())
    adapter = {f"backbone.{name}" for name in probe.backbone.adapter.parameters()}
    assert adapter and all("lora_" in name for name in adapter)
    for name, parameter in parameters.items():
        learns = name in adapter or name.startswith("head.")
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == learns, name
        assert learns or torch.equal(parameter, frozen[name])
    training = [
        name for name, module in probe.backbone.named_modules() if module.training and "lora_dropout" not in name
    ]
    assert training == []


@pytest.mark.filterwarnings("ignore:Unmerge result can be inaccurate")
@pytest.mark.parametrize("lora", METHODS, ids=lambda lora: f"{type(lora).__name__}{getattr(lora, 'lora_dropout', '')}")
def test_save_load_merge_unmerge_disable(lora, tiny_backbone, tmp_path):
    """Each method: the same logits after loading, merged, unmerged; without the adapter those of the bare backbone."""
    probe = lora_probe(tiny_backbone("vit"), lora).eval()
    plain = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=LABELS).eval()
    plain.head.load_state_dict(probe.head.state_dict())
    with torch.no_grad():
        for parameter in probe.backbone.adapter.parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    pixels = pixels_of(probe)
    logits = probe(pixels).logits
    assert not torch.allclose(logits, plain(pixels).logits, atol=1e-3)
    with probe.backbone.adapter.disabled():
        torch.testing.assert_close(probe(pixels).logits, plain(pixels).logits)
    probe.save_pretrained(tmp_path)
    for load in (ProbeForImageClassification, AutoModelForImageClassification):
        torch.testing.assert_close(load.from_pretrained(tmp_path).eval()(pixels).logits, logits, atol=1e-6, rtol=1e-5)
    probe.backbone.adapter.merge()
    torch.testing.assert_close(probe(pixels).logits, logits, atol=1e-5, rtol=1e-5)
    probe.backbone.adapter.unmerge()
    torch.testing.assert_close(probe(pixels).logits, logits, atol=1e-5, rtol=1e-5)
    probe.merge_adapter()
    assert probe.backbone.adapter is None and not any(p.requires_grad for p in probe.backbone.parameters())
    probe.save_pretrained(tmp_path / "merged")
    loaded = ProbeForImageClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(loaded(pixels).logits, logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="no adapter to merge"):
        probe.merge_adapter()


def test_adapters_travel_to_and_from_bare_backbones(tiny_backbone, tmp_path):
    """PEFT loads our adapter on the plain model, and we load one that PEFT trained on it."""
    folder = tiny_backbone("vit")
    probe = lora_probe(folder).eval()
    probe.save_pretrained(tmp_path)
    pixels = pixels_of(probe)
    bare = PeftModel.from_pretrained(
        ViTModel.from_pretrained(folder, add_pooling_layer=False), tmp_path / "lora"
    ).eval()
    expected = probe.backbone(pixels)["last"].patches
    torch.testing.assert_close(bare(pixels).last_hidden_state[:, 1:], expected)
    elsewhere = get_peft_model(
        ViTModel.from_pretrained(folder, add_pooling_layer=False),
        LoraConfig(r=2, target_modules=["q_proj", "fc1"], init_lora_weights=False),
    ).eval()
    elsewhere.save_pretrained(tmp_path / "elsewhere")
    ours = lora_probe(folder, str(tmp_path / "elsewhere")).eval()
    torch.testing.assert_close(ours.backbone(pixels)["last"].patches, elsewhere(pixels).last_hidden_state[:, 1:])


@pytest.mark.parametrize("lora", METHODS[:4], ids=lambda lora: type(lora).__name__)
@pytest.mark.filterwarnings("ignore:Unmerge result can be inaccurate")
def test_a_self_contained_probe_keeps_backbone_and_adapter_apart(lora, tiny_backbone, tmp_path):
    """Saved with its backbone, also while merged: nothing is counted twice after loading."""
    probe = lora_probe(tiny_backbone("vit"), lora).eval()
    assert set(probe.backbone.adapter.base_tensors()) == set(load_backbone_keys(tiny_backbone("vit")))
    logits = probe(pixels_of(probe)).logits
    probe.config.self_contained = True
    for merged in (False, True):
        if merged:
            probe.backbone.adapter.merge()
        probe.save_pretrained(tmp_path / str(merged))
        loaded = ProbeForImageClassification.from_pretrained(tmp_path / str(merged)).eval()
        torch.testing.assert_close(loaded(pixels_of(probe)).logits, logits, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_and_bfloat16(tiny_backbone):
    """Recomputing changes no gradient; in bfloat16 adapter and head stay in float32 and learn."""
    gradients, calls = [], []
    for checkpointing in (False, True):
        probe = lora_probe(tiny_backbone("vit"))
        torch.manual_seed(0)
        probe.head.classifier.reset_parameters()
        if checkpointing:
            newer = getattr(probe, "activation_checkpointing_enable", None)  # from transformers 5.23 on
            (newer or probe.gradient_checkpointing_enable)({"use_reentrant": False})
            for layer in probe.backbone.model.layers:
                layer.attention.register_forward_hook(lambda *_: calls.append(1))
        probe.train()
        probe(pixels_of(probe), labels=torch.tensor([0, 1, 2])).loss.backward()
        gradients.append([p.grad for p in probe.backbone.adapter.parameters().values()])
    assert len(calls) == 2 * len(probe.backbone.model.layers)
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)
    probe = lora_probe(tiny_backbone("vit"), dtype=torch.bfloat16).train()
    assert {p.dtype for p in probe.parameters() if p.requires_grad} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        probe(pixels_of(probe), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in probe.backbone.adapter.parameters().values())


@pytest.mark.parametrize("method", ["lora", "vera"])
def test_dropout_of_the_adapter_alone(method, tiny_backbone):
    """A dropout of the backbone, whatever its name, stays off; that of the adapter follows the mode."""
    lora = LoraConfig(r=2, lora_dropout=0.5) if method == "lora" else VeraConfig(r=2, vera_dropout=0.5)
    probe = lora_probe(tiny_backbone("vit"), lora)
    probe.backbone.model.layers[0].hidden_dropout = torch.nn.Dropout(0.9)
    for mode in (True, False):
        probe.train(mode)
        own = [m for name, m in probe.backbone.named_modules() if name.endswith(f"{method}_dropout.default")]
        assert own and all(module.training == mode for module in own)
        assert not probe.backbone.model.layers[0].hidden_dropout.training


def test_linear_probing_then_fine_tuning(tiny_backbone, tmp_path):
    """A trained probe starts an adapter without a step back: same logits, then both learn."""
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4}), labels=LABELS
    )
    probe.save_pretrained(tmp_path)
    started = ProbeForImageClassification.from_pretrained(tmp_path, lora=LoraConfig(r=4)).eval()
    torch.testing.assert_close(started(pixels_of(probe)).logits, probe.eval()(pixels_of(probe)).logits)
    assert started.backbone.adapter is not None and started.config.lora
    started.save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="has an adapter already"):
        ProbeForImageClassification.from_pretrained(tmp_path / "lora", lora=LoraConfig(r=4))
    with pytest.raises(ValueError, match="belongs to one probe"):
        ProbeForImageClassification.from_pretrained(tmp_path / "lora", backbone=started.backbone)


def test_what_does_not_fit_is_refused(tiny_backbone, tmp_path):
    """Several heads, missing layers, a second adapter, no adapter there: each says why."""
    folder = tiny_backbone("vit")
    runs = {name: HeadRun(HeadConfig("mean")) for name in "ab"}
    with pytest.raises(ValueError, match=r"belongs to one head: the gradients of \['a', 'b'\]"):
        ProbeSweep.from_backbone(folder, runs, labels=LABELS, lora=LoraConfig(r=4))
    with pytest.raises(ValueError, match="linear layers are .*q_proj"):
        lora_probe(folder, LoraConfig(r=4, target_modules=["nothing"]))
    config = load_backbone_config(folder)
    backbone = VisionBackbone.from_config(config)
    add_lora(backbone, LoraConfig(r=4))
    with pytest.raises(ValueError, match="has an adapter already"):
        add_lora(backbone, LoraConfig(r=4))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_lora(VisionBackbone.from_config(config), tmp_path)
