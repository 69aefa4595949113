"""A probe is saved whole or refused, whoever saves it and whatever stands around its modules."""

import shutil

import pytest
import torch
import transformers
from peft import LoraConfig, VeraConfig

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.probe.files.upload import push_folder
from tiers import mostly_slow
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
OPTIONS = {
    "plain": LoraConfig(r=2),
    "pissa": LoraConfig(r=2, init_lora_weights="pissa"),
    "pissa at random": LoraConfig(r=2, init_lora_weights="pissa_niter_2"),
    "olora": LoraConfig(r=2, init_lora_weights="olora"),
    "whole modules": LoraConfig(r=2, modules_to_save=["layernorm"]),
    "dora": LoraConfig(r=2, use_dora=True),
    "rslora": LoraConfig(r=2, use_rslora=True, rank_pattern={"q_proj": 3}),
    "biases": LoraConfig(r=2, bias="lora_only"),
    "vera": VeraConfig(r=2),
}


def new_probe(backbone, lora=None, **options):
    torch.manual_seed(0)
    head = HeadConfig("mean", feature_norm="layernorm")
    return ProbeForImageClassification.from_backbone(backbone, head, labels=LABELS, lora=lora, **options)


def pixels():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def a_step(probe):
    """Train everything that learns by one large step."""
    optimizer = torch.optim.SGD([p for p in probe.parameters() if p.requires_grad], lr=0.5)
    probe.train()(pixels(), labels=torch.arange(3)).loss.backward()
    optimizer.step()
    return probe.eval()


def assert_same(loaded, probe):
    torch.testing.assert_close(loaded.eval()(pixels()).logits, probe(pixels()).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("self_contained", [False, True])
@pytest.mark.parametrize("name", mostly_slow(OPTIONS, [0, 2, 5]))
def test_every_option_of_an_adapter_comes_back(name, self_contained, tiny_backbone, tmp_path):
    """Initializations that change the weights, whole modules, biases, shared projections: the same logits."""
    probe = a_step(new_probe(tiny_backbone("vit"), OPTIONS[name]))
    probe.config.self_contained |= self_contained
    assert probe.config.self_contained == (self_contained or name == "pissa at random")
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path)
    assert_same(loaded, probe)
    loaded.save_pretrained(tmp_path / "again")  # and of the copy
    assert_same(ProbeForImageClassification.from_pretrained(tmp_path / "again"), probe)


def test_a_random_initialization_needs_its_weights(tiny_backbone, tmp_path):
    """What nobody can draw again is not saved without its weights."""
    probe = new_probe(tiny_backbone("vit"), OPTIONS["pissa at random"])
    probe.config.self_contained = False
    with pytest.raises(ValueError, match="at random.*self_contained = True"):
        probe.save_pretrained(tmp_path)


def test_copied_layers_are_refused(tiny_backbone):
    """An adapter that changes what the backbone is made of fails before the training, not when it is saved."""
    folder = tiny_backbone("vit")
    with pytest.raises(ValueError, match="changes what the backbone is made of|does not fit the backbone"):
        new_probe(folder, LoraConfig(r=2, layer_replication=[(0, 2), (1, 2)]))


@pytest.mark.parametrize("kind", ["plain", "lora", "self-contained"])
def test_saving_uploads_the_same(kind, hub, tiny_backbone, tmp_path):
    """`save_pretrained(push_to_hub=True)`: everything that lies in the folder is on the Hub, and loads."""
    probe = a_step(new_probe(tiny_backbone("vit"), LoraConfig(r=2) if kind == "lora" else None))
    probe.config.self_contained = kind == "self-contained"
    probe.files["README.md"] = "# mine\n"
    probe.save_pretrained(tmp_path / "probe", push_to_hub=True, repo_id="me/probe", commit_message="by habit")
    local = {path.relative_to(tmp_path / "probe").as_posix() for path in (tmp_path / "probe").rglob("*.*")}
    assert {"preprocessor_config.json", "config.json", "model.safetensors"} < local
    assert local == set(hub.files("me/probe"))
    assert [title for title, _ in hub.repositories["model", "me/probe"].commits.values()][-1] == "by habit"
    assert_same(ProbeForImageClassification.from_pretrained("me/probe"), probe)
    assert transformers.pipeline("image-classification", model="me/probe")


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2)])
def test_a_trainer_that_uploads_while_it_trains(lora, hub, tiny_backbone, tmp_path):
    """`hub_strategy="every_save"` names three files alone; what they hold is enough for the probe."""
    probe = new_probe(tiny_backbone("vit"), lora)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=2, per_device_train_batch_size=4, push_to_hub=True, learning_rate=0.1,
        hub_model_id="me/every", hub_strategy="every_save", remove_unused_columns=False, report_to="none", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(probe, arguments, data_collator=collator(probe), train_dataset=image_dataset(8)).train()
    shutil.rmtree(tmp_path / "checkpoint-2")  # the machine is gone
    loaded = ProbeForImageClassification.from_pretrained("me/every")
    assert_same(loaded, probe.eval())
    assert loaded.image_processor.to_dict() == probe.image_processor.to_dict()


def collator(probe):
    def collate(rows):
        batch = probe.image_processor([row["image"].convert("RGB") for row in rows], return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}

    return collate


def test_other_processes_write_nothing(tiny_backbone, tmp_path):
    """`is_main_process=False`: not a file, no processor, no adapter."""
    new_probe(tiny_backbone("vit"), LoraConfig(r=2)).save_pretrained(tmp_path / "p", is_main_process=False)
    assert not list((tmp_path / "p").rglob("*.*"))


def test_shards_are_a_probe(hub, tiny_backbone, tmp_path):
    """A probe in several files loads, and is pushed from its folder."""
    probe = a_step(new_probe(tiny_backbone("vit")))
    probe.save_pretrained(tmp_path, max_shard_size=200)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same(ProbeForImageClassification.from_pretrained(tmp_path), probe)
    push_folder(tmp_path, "me/shards")
    assert_same(ProbeForImageClassification.from_pretrained("me/shards"), probe)


def test_the_size_of_shards_is_that_of_all_files(tiny_backbone, tmp_path):
    """`max_shard_size` reaches a backbone that is saved with its probe."""
    probe = a_step(new_probe(tiny_backbone("vit")))
    probe.config.self_contained = True
    probe.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list((tmp_path / "backbone").glob("model-*.safetensors"))) > 1
    assert_same(ProbeForImageClassification.from_pretrained(tmp_path), probe)


def test_a_merged_adapter_is_none(tiny_backbone, tmp_path):
    """Merged by the adapter's own method, it is a part of the weights: a probe without one."""
    probe = a_step(new_probe(tiny_backbone("vit"), LoraConfig(r=2)))
    probe.save_pretrained(tmp_path / "apart")
    probe.backbone.adapter.merge_and_unload()
    with pytest.raises(ValueError, match="no longer those"):
        probe.save_pretrained(tmp_path / "named")
    probe.config.self_contained = True
    probe.save_pretrained(tmp_path / "whole")
    loaded = ProbeForImageClassification.from_pretrained(tmp_path / "whole")
    assert loaded.backbone.adapter is None and not loaded.config.lora
    assert_same(loaded, probe)


@pytest.mark.parametrize("part", ["backbone", "head", "both"])
def test_compiled_modules_are_saved_by_their_names(part, tiny_backbone, tmp_path):
    """What `torch.compile` wraps is stored as if it did not."""
    probe = a_step(new_probe(tiny_backbone("vit")))
    expected = probe(pixels()).logits
    probe.config.self_contained = True
    if part != "head":
        probe.backbone.model = torch.compile(probe.backbone.model, backend="eager")
    if part != "backbone":
        probe.head.classifier = torch.compile(probe.head.classifier, backend="eager")
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(pixels()).logits, expected)


def test_what_is_wrapped_otherwise_is_refused(tiny_backbone, tmp_path):
    """Names that no fresh probe has are not written, and nothing else is."""
    probe = new_probe(tiny_backbone("vit"))
    torch.nn.utils.parametrizations.weight_norm(probe.head.classifier)
    with pytest.raises(ValueError, match=r"could not be loaded again: \['head\.classifier"):
        probe.save_pretrained(tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_changed_weights_are_saved_or_refused(tiny_backbone, tmp_path):
    """A backbone that somebody trained is no longer the one that is named."""
    probe = new_probe(tiny_backbone("vit"))
    probe.backbone.requires_grad_(True)
    a_step(probe)
    with pytest.raises(ValueError, match="no longer those.*self_contained = True.*lora="):
        probe.save_pretrained(tmp_path / "p")
    assert not (tmp_path / "p").exists()
    probe.config.self_contained = True
    probe.save_pretrained(tmp_path / "p")
    assert_same(ProbeForImageClassification.from_pretrained(tmp_path / "p"), probe)
