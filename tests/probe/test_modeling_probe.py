import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from attentive_probes import HeadConfig, ProbeConfig, ProbeForImageClassification
from tiny import FAMILIES, SIZE, WIDTH, image_dataset

LABELS = ["cat", "dog", "owl"]
EP = HeadConfig("ep", {"num_queries": 8})


def make_probe(folder: str, head: HeadConfig = EP, **options) -> ProbeForImageClassification:
    torch.manual_seed(0)
    options.setdefault("labels", LABELS)
    return ProbeForImageClassification.from_backbone(folder, head, **options)


def pixels(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_is_loaded(family, tiny_backbone, tmp_path):
    """Bit-equal weights and the same logits after a reload, with every family, in a few learned tensors."""
    probe = make_probe(tiny_backbone(family)).eval()
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    for key, tensor in probe.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert torch.allclose(probe(pixels()).logits, loaded(pixels()).logits, atol=1e-6)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == {f"head.{key}" for key in probe.head.state_dict()}
    assert not any(p.requires_grad for p in loaded.backbone.parameters())


def test_auto_classes_and_pipeline(tiny_backbone, tmp_path):
    """The Auto classes and the pipeline find a saved probe, and agree with it."""
    probe = make_probe(tiny_backbone("vit")).eval()
    probe.save_pretrained(tmp_path)
    auto = hf.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert isinstance(auto, ProbeForImageClassification)
    assert isinstance(hf.AutoConfig.from_pretrained(tmp_path), ProbeConfig)
    image = image_dataset(1)[0]["image"]
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    scores = probe(**processor(image, return_tensors="pt")).logits.softmax(-1)[0]
    classify = hf.pipeline("image-classification", model=str(tmp_path), top_k=3)
    assert {p["label"]: p["score"] for p in classify(image)} == pytest.approx(
        {label: scores[i].item() for i, label in enumerate(LABELS)}, abs=1e-6
    )
    assert len(classify([image, image], batch_size=2)) == 2


@pytest.mark.slow
def test_a_fresh_process_loads_by_path_alone(tiny_backbone, tmp_path):
    """Nothing but the folder and the package is needed."""
    probe = make_probe(tiny_backbone("vit")).eval()
    probe.save_pretrained(tmp_path)
    code = (
        "import sys, torch, attentive_probes, transformers as hf\n"
        "model = hf.AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()\n"
        "x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))\n"
        "print(model(x).logits.flatten().tolist())"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == pytest.approx(probe(pixels()).logits.flatten().tolist(), abs=1e-6)


def test_config_names_no_machine(tiny_backbone, tmp_path):
    """A saved configuration holds the backbone's name and geometry, and no other trace of where it was made."""
    make_probe("embedded:mae-tiny-fashion").save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert "site-packages" not in text
    assert "attentive_probes." not in text  # no module of this package, so that they may move
    assert str(Path.cwd()) not in text
    config = json.loads(text)
    assert config["backbone_name_or_path"] == "embedded:mae-tiny-fashion"
    layout = {"width": 128, "num_cls": 1, "num_registers": 0, "grid": [7, 7]}
    assert config["token_layouts"] == {"last": layout, "attn": layout, "ffn": {**layout, "width": 512}}
    assert config["image_size"] == [28, 28]
    assert config["head"]["options"] == {"num_queries": 8}


def test_a_probe_of_the_embedded_backbone_is_small(tmp_path):
    """Below 300 kB in all."""
    make_probe("embedded:mae-tiny-fashion", HeadConfig("ep")).save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 300_000


@pytest.mark.parametrize(
    ("problem_type", "labels", "reference"),
    [
        ("single_label_classification", torch.tensor([0, 2]), torch.nn.functional.cross_entropy),
        (
            "multi_label_classification",
            torch.tensor([[1.0, 0, 1], [0, 0, 1]]),
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
        ("regression", torch.randn(2, 3), torch.nn.functional.mse_loss),
    ],
)
def test_losses(problem_type, labels, reference, tiny_backbone):
    """The loss follows the problem type."""
    probe = make_probe(tiny_backbone("vit"), problem_type=problem_type).eval()
    output = probe(pixels(), labels=labels)
    assert torch.allclose(output.loss, reference(output.logits, labels))
    assert probe(pixels(), return_dict=False)[0].shape == (2, 3)


def test_output_shapes(tiny_backbone):
    """Logits (B, C), attention (B, M, T) over patches, features (B, F); no loss without labels."""
    output = make_probe(tiny_backbone("vit")).eval()(pixels())
    assert output.loss is None
    assert output.logits.shape == (2, 3)
    assert output.attention.shape == (2, 8, 16)
    assert output.features.shape == (2, WIDTH)


def test_only_the_head_learns(tiny_backbone):
    """A training step changes the head and not one bit of the backbone."""
    probe = make_probe(tiny_backbone("vit")).train()
    before = {key: tensor.clone() for key, tensor in probe.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in probe.parameters() if p.requires_grad], lr=0.1)
    probe(pixels(4), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    optimizer.step()
    for key, tensor in probe.state_dict().items():
        assert torch.equal(tensor, before[key]) == key.startswith("backbone."), key


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_backbones_keep_the_head_in_float32(dtype, tiny_backbone, tmp_path):
    """The backbone takes the precision asked for; head and logits stay float32, also after a reload."""
    probe = make_probe(tiny_backbone("vit"), dtype=dtype).eval()
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path, dtype=dtype).eval()
    for model in (probe, loaded):
        assert model.backbone.model.dtype == dtype
        assert model.head.classifier.weight.dtype == torch.float32
        assert model(pixels()).logits.dtype == torch.float32


def test_a_missing_tensor_is_an_error(tiny_backbone, tmp_path):
    """A checkpoint without its classifier is refused, not completed at random."""
    probe = make_probe(tiny_backbone("vit"))
    part = {key: tensor for key, tensor in probe.state_dict().items() if "classifier" not in key}
    with pytest.raises(ValueError, match=r"could not be loaded again: \['head\.classifier"):
        probe.save_pretrained(tmp_path / "refused", state_dict=part)
    assert not (tmp_path / "refused").exists()
    probe.save_pretrained(tmp_path)
    save_file(
        {k: v for k, v in part.items() if k.startswith("head.")}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"lacks learned tensors .*head\.classifier"):
        ProbeForImageClassification.from_pretrained(tmp_path)


def test_a_moved_backbone_can_be_named(tiny_backbone, tmp_path):
    """When the stored backbone is gone the error says so, and `backbone=` gives its new place or a loaded one."""
    probe = make_probe(tiny_backbone("vit")).eval()
    original = probe.config.backbone_name_or_path
    probe.config.backbone_name_or_path = str(tmp_path / "gone")
    probe.save_pretrained(tmp_path / "probe")
    with pytest.raises(ValueError, match=r"weights of the backbone .*gone.* cannot be found"):
        ProbeForImageClassification.from_pretrained(tmp_path / "probe")
    for backbone in (original, probe.backbone):
        loaded = ProbeForImageClassification.from_pretrained(tmp_path / "probe", backbone=backbone).eval()
        assert torch.allclose(loaded(pixels()).logits, probe(pixels()).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": None}, "Pass `labels`"),
        ({"labels": ["a", "a"]}, "distinct"),
        ({"num_labels": 2}, "contradicts"),
        ({"head": HeadConfig("ep", {"num_queries": 7})}, "does not divide"),
        ({"head": HeadConfig("mean", tokens=("registers",))}, "no registers tokens"),
        ({"head": HeadConfig("mean", tokens=("cls@blck:1",))}, "Unknown tap 'blck:1'"),
        ({"head": HeadConfig("eq")}, "Unknown pooling 'eq'"),
    ],
)
def test_wrong_settings_fail_at_construction(options, message, tiny_backbone):
    """Labels and heads that do not fit are named."""
    with pytest.raises(ValueError, match=message):
        make_probe(tiny_backbone("vit"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"token_norm": "l3"}, "token_norm"), ({"feature_norm": "bn"}, "feature_norm"), ({"dropout": 1.0}, "dropout")],
)
def test_head_config_checks_itself(options, message):
    """Unknown norms and an impossible dropout are refused."""
    with pytest.raises(ValueError, match=message):
        HeadConfig(**options)


def test_transformers_trainer_trains_a_probe(tiny_backbone, tmp_path):
    """transformers.Trainer trains, evaluates, saves and resumes the same object."""
    probe = make_probe(tiny_backbone("vit"), labels=["band 0", "band 1", "band 2"])
    dataset = image_dataset(24)

    def collate(rows):
        batch = probe.image_processor([row["image"] for row in rows], return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}

    def train(epochs: int, resume: bool) -> hf.Trainer:
        arguments = hf.TrainingArguments(
            str(tmp_path),
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            learning_rate=0.05,
            remove_unused_columns=False,
            report_to="none",
            save_strategy="epoch",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = hf.Trainer(
            probe,
            arguments,
            data_collator=collate,
            train_dataset=dataset,
            eval_dataset=dataset,
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    first = train(2, resume=False).evaluate()
    last = train(10, resume=True)
    assert last.state.global_step == 30
    assert last.evaluate()["eval_loss"] < first["eval_loss"]
    checkpoint = load_file(sorted(tmp_path.glob("checkpoint-*"))[-1] / "model.safetensors")
    assert all(key.startswith("head.") for key in checkpoint)


def test_gradient_free_skeleton_builds_offline(tiny_backbone):
    """A probe is rebuilt from its configuration alone, with fresh weights."""
    config = make_probe(tiny_backbone("vit")).config
    model = hf.AutoModelForImageClassification.from_config(config)
    assert model(pixels()).logits.shape == (2, 3)
