"""Programs that know PEFT, PyTorch or transformers, but not this package, use a probe."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import LoraConfig, get_peft_model

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.poolings import POOLINGS
from tiers import mostly_slow

TARGETS = ["q_proj", "v_proj"]


def new_probe(backbone, **options):
    torch.manual_seed(0)
    return ProbeForImageClassification.from_backbone(backbone, HeadConfig("mean"), num_labels=3, **options)


def pixels(count=3):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_an_adapter_from_outside_learns(tiny_backbone):
    """`get_peft_model(probe, ...)`: every tensor of it gets a gradient and changes, its dropout is on in training."""
    config = LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["head"], lora_dropout=0.5)
    model = get_peft_model(new_probe(tiny_backbone("vit")), config).train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(pixel_values=pixels(), labels=torch.arange(3)).loss.backward()
        optimizer.step()
    unchanged = [name for name, p in trained.items() if torch.equal(p, before[name]) or p.grad is None]
    assert any("lora_" in name for name in trained) and unchanged == []
    dropouts = [module for name, module in model.named_modules() if name.endswith("lora_dropout.default")]
    assert dropouts and all(module.training for module in dropouts)
    assert not any(module.training for module in model.eval().modules())


def test_methods_of_transformers_point_to_lora(tiny_backbone):
    """An adapter that would freeze the head, or be lost in saving, is refused with the way to have one."""
    probe = new_probe(tiny_backbone("vit"))
    for method in (probe.add_adapter, probe.load_adapter):
        with pytest.raises(ValueError, match="lora="):
            method(LoraConfig(r=2, target_modules=TARGETS))


def test_gradients_reach_what_asks_for_them(tiny_backbone):
    """Unfrozen blocks and images get their gradients; without a wish there is no graph."""
    probe = new_probe(tiny_backbone("vit")).train()
    assert probe.backbone(pixels())["last"].patches.grad_fn is None
    images = pixels().requires_grad_()
    probe.eval()(images).logits.sum().backward()
    assert images.grad.abs().sum() > 0
    block = probe.backbone.model.layers[-1].requires_grad_(True)
    probe.train()(pixels(), labels=torch.arange(3)).loss.backward()
    assert all(p.grad is not None for p in block.parameters())
    assert all(p.grad is None for p in probe.backbone.model.layers[0].parameters())
    with torch.no_grad():
        assert probe.backbone(pixels())["last"].patches.grad_fn is None


def test_a_shared_backbone_is_not_changed(tiny_backbone, tmp_path):
    """Neither by the adapter of another probe nor by where and how that one is loaded."""
    folder = tiny_backbone("vit")
    probe = new_probe(folder).eval()
    expected, backbone = probe(pixels()).logits, probe.backbone
    new_probe(folder, lora=LoraConfig(r=2, init_lora_weights=False)).save_pretrained(tmp_path / "adapted")
    probe.save_pretrained(tmp_path / "frozen")
    load = ProbeForImageClassification.from_pretrained
    for name, options in (("adapted", {}), ("frozen", {"lora": LoraConfig(r=2)})):
        with pytest.raises(ValueError, match="would change the backbone to share"):
            load(tmp_path / name, backbone=backbone, **options)
    with pytest.raises(ValueError, match=r"backbone to share is in torch\.float32"):
        load(tmp_path / "frozen", backbone=backbone, dtype="bfloat16")
    shared = load(tmp_path / "frozen", backbone=backbone).eval()
    assert shared.backbone is backbone
    assert torch.equal(shared(pixels()).logits, expected) and torch.equal(probe(pixels()).logits, expected)


@pytest.mark.parametrize("dtype", [None, "bfloat16", torch.float16])
@pytest.mark.parametrize("way", ["named", "given"])
def test_weights_are_checked_by_every_way_in(way, dtype, tiny_backbone, tmp_path):
    """Other weights under the same name are found in any precision, and the right ones are taken."""
    probe = new_probe(tiny_backbone("vit"))
    probe.save_pretrained(tmp_path / "probe")
    other = copy.deepcopy(probe.backbone.model)
    with torch.no_grad():
        other.layers[0].mlp.fc1.weight[0, 0] += 1e-4  # too little for half precision
    other.save_pretrained(tmp_path / "other")
    probe.image_processor.save_pretrained(tmp_path / "other")

    def load(folder):
        given = folder if way == "named" else new_probe(str(folder), dtype=dtype).backbone
        options = {"dtype": dtype} if way == "named" and dtype is not None else {}
        return ProbeForImageClassification.from_pretrained(tmp_path / "probe", backbone=given, **options)

    with pytest.raises(ValueError, match="have the fingerprint"):
        load(str(tmp_path / "other"))
    if dtype is None:
        with pytest.raises(ValueError, match="have the fingerprint"):
            ProbeForImageClassification(probe.config, new_probe(str(tmp_path / "other")).backbone)
    loaded = load(tiny_backbone("vit"))
    assert str(loaded.backbone.dtype) == f"torch.{dtype or 'float32'}".replace("torch.torch", "torch")
    assert loaded.head.classifier.weight.dtype == torch.float32


def test_arguments_are_taken_or_refused_by_name(tiny_backbone, tmp_path):
    """What other models take, a probe takes; what it does not, is named with the method that was called."""
    folder = tiny_backbone("vit")
    probe = new_probe(
        folder, token="hf_secret", cache_dir=str(tmp_path / "cache"), local_files_only=True, torch_dtype="bfloat16"
    )
    assert probe.backbone.dtype == torch.bfloat16
    assert b"hf_secret" not in pickle.dumps(probe)
    with pytest.raises(ValueError, match=r"Unknown dtype 'bf16'\. Did you mean 'bfloat16'|Unknown dtype 'bf16'"):
        new_probe(folder, dtype="bf16")
    with pytest.raises(ValueError, match="Unknown problem_type 'multilabel'"):
        new_probe(folder, problem_type="multilabel")
    with pytest.raises(TypeError, match=r"from_backbone\(\) takes no argument 'memory'; it takes .*max_memory.*token"):
        new_probe(folder, memory={})
    with pytest.raises(TypeError, match=r"push_to_hub\(\) takes no argument 'organization'"):
        probe.push_to_hub("me/probe", organization="us")


def test_a_trained_probe_takes_other_classes(tiny_backbone, tmp_path):
    """`num_labels`, `id2label` and `ignore_mismatched_sizes`, as in transformers: a fresh classifier on the rest."""
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 2}), labels=["7", "8", "9"]
    )
    probe.save_pretrained(tmp_path)
    load = ProbeForImageClassification.from_pretrained
    loaded = load(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert loaded.config.num_labels == 5 and loaded(pixels()).logits.shape == (3, 5) and not loaded.head.is_trained
    assert torch.equal(loaded.head.pooling.query, probe.head.pooling.query)
    named = load(tmp_path, id2label={0: "a", 1: "b", 2: "c"})
    assert named.config.label2id == {"a": 0, "b": 1, "c": 2} and named.head.is_trained
    assert torch.equal(named.head.classifier.weight, probe.head.classifier.weight)
    assert named.config.label_values is None
    several = load(tmp_path, problem_type="multi_label_classification")
    assert several(pixels(), labels=torch.zeros(3, 3)).loss > 0
    with pytest.raises((RuntimeError, ValueError), match="has the shape \\[3, 32\\], not \\[5, 32\\] as configured"):
        load(tmp_path, num_labels=5)


def test_a_probe_travels_to_other_processes(tiny_backbone):
    """Pickled after its weights were hashed, it is the same probe."""
    probe = new_probe(tiny_backbone("vit")).eval()
    probe.backbone.fingerprint()
    copied = pickle.loads(pickle.dumps(probe))
    assert torch.equal(copied(pixels()).logits, probe(pixels()).logits)
    assert copied.backbone.fingerprint() == probe.backbone.fingerprint()


@pytest.mark.parametrize("pooling", mostly_slow(sorted(POOLINGS), ["ep", "alf", "aim", "cbam"]))
def test_threads_do_not_mix(pooling, tiny_backbone):
    """Every pooling, eight threads: each request has the answer that it has alone."""
    tokens = ("cls@all", "mean@all") if pooling == "alf" else ("patches@prenorm",)
    options = {"num_attention_heads": 4} if pooling in ("alf", "aim", "jepa", "esimpool") else {}
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig(pooling, options, tokens), num_labels=3
    ).eval()
    requests = torch.randn(32, 2, 3, 16, 16)
    with torch.no_grad():
        alone = [probe(images).logits for images in requests]

    def answer(number):
        with torch.no_grad():
            return torch.allclose(probe(requests[number % 32]).logits, alone[number % 32], atol=1e-6)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(answer, range(128)))
