"""Probes on the Hub, by the real client: pushed in one commit, loaded by revision, never corrupt."""

import json
import logging

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from peft import LoraConfig, PeftModel
from transformers import AutoModel, ViTModel

from attentive_probes import (
    HeadConfig,
    HeadRun,
    ProbeForImageClassification,
    ProbeSweep,
    ProbeTrainer,
    ProbeTrainingArguments,
)
from attentive_probes.backbones import VisionBackbone
from attentive_probes.probe.files.upload import push_folder
from local_hub import TOKEN
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
REPO = "me/probe"


@pytest.fixture
def backbone_on_hub(hub, tiny_backbone):
    HfApi().create_repo("me/vit")
    HfApi().upload_folder(repo_id="me/vit", folder_path=tiny_backbone("vit"))
    return "me/vit"


def new_probe(backbone, **options):
    return ProbeForImageClassification.from_backbone(
        backbone, HeadConfig("ep", {"num_queries": 4}), labels=LABELS, **options
    ).eval()


def pixels():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_one_commit_and_back(hub, backbone_on_hub, tmp_path):
    """Train, push, load: one commit with everything, a card the Hub reads, the same logits."""
    probe = new_probe(backbone_on_hub)
    trainer = ProbeTrainer(
        probe, ProbeTrainingArguments(str(tmp_path), 1, batch_size=8), image_dataset(24), image_dataset(12)
    )
    trainer.train()
    trainer.test(image_dataset(12, seed=3))
    commit = trainer.probe().push_to_hub(REPO, private=True, commit_message="ep on tiny")
    repository = hub.repositories["model", REPO]
    assert [title for title, _ in repository.commits.values()] == ["initial commit", "ep on tiny"]
    assert repository.private and commit.commit_url.endswith(commit.oid)
    assert set(hub.files(REPO)) == {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "results.json"
    }  # fmt: skip
    assert sum(map(len, hub.files(REPO).values())) < 100_000
    card = ModelCard.load(REPO)
    accuracy = next(r for r in card.data.eval_results if r.metric_type == "accuracy")
    assert accuracy.metric_value == pytest.approx(trainer.results.heads[0].test["top1"], abs=1e-4)
    assert card.data.base_model == "me/vit" and f'model="{REPO}"' in card.content
    loaded = ProbeForImageClassification.from_pretrained(REPO).eval()
    torch.testing.assert_close(loaded(pixels()).logits, probe.eval()(pixels()).logits)
    assert loaded.config.backbone_revision == hub.repositories["model", "me/vit"].branches["main"]


def test_revisions_requests_and_subfolders(hub, backbone_on_hub, tmp_path, monkeypatch):
    """A branch, a pull request and a subfolder each give their own head; a cache serves without the network."""
    probes = {where: new_probe(backbone_on_hub) for where in ("main", "second", "request", "sub")}
    first = probes["main"].push_to_hub(REPO).oid
    probes["second"].push_to_hub(REPO, revision="second")
    request = probes["request"].push_to_hub(REPO, create_pr=True)
    assert request.pr_revision == "refs/pr/1"
    probes["sub"].save_pretrained(tmp_path / "sub")
    HfApi().upload_folder(repo_id=REPO, folder_path=tmp_path / "sub", path_in_repo="heads/b")
    places = {"main": {"revision": first}, "second": {"revision": "second"}, "request": {"revision": "refs/pr/1"}}
    places["sub"] = {"subfolder": "heads/b"}
    for where, place in places.items():
        loaded = ProbeForImageClassification.from_pretrained(REPO, **place).eval()
        torch.testing.assert_close(loaded(pixels()).logits, probes[where](pixels()).logits)
    requests = len(hub.log)
    ProbeForImageClassification.from_pretrained(REPO, revision=first, local_files_only=True)
    assert len([line for line in hub.log[requests:] if "resolve" in line and line.startswith("GET")]) == 0


def test_offline_from_the_cache_and_the_backbone_once(hub, backbone_on_hub, monkeypatch):
    """What was loaded before loads without the network; the backbone is read once, and built from nothing never."""
    probe = new_probe(backbone_on_hub)
    probe.push_to_hub(REPO)
    ProbeForImageClassification.from_pretrained(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    reads, read = [], VisionBackbone.from_pretrained.__func__
    counted = classmethod(lambda cls, *arguments, **options: reads.append(1) or read(cls, *arguments, **options))
    monkeypatch.setattr(VisionBackbone, "from_pretrained", counted)
    monkeypatch.setattr(VisionBackbone, "from_config", None)
    requests = len(hub.log)
    loaded = ProbeForImageClassification.from_pretrained(REPO).eval()
    torch.testing.assert_close(loaded(pixels()).logits, probe(pixels()).logits)
    assert reads == [1] and len(hub.log) == requests


def test_other_weights_are_an_error(hub, backbone_on_hub, tmp_path):
    """A backbone whose weights are not those of the training is named with both fingerprints; unless it is meant."""
    probe = new_probe(backbone_on_hub)
    probe.save_pretrained(tmp_path / "probe")
    other = ViTModel.from_pretrained("me/vit", add_pooling_layer=False)
    with torch.no_grad():
        other.layernorm.bias += 1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match=rf"fingerprint float32:[\w-]+, but .*'me/vit' with {probe.config.backbone_fingerprint}"
    ):
        ProbeForImageClassification.from_pretrained(tmp_path / "probe", backbone=str(tmp_path / "other"))
    config = json.loads((tmp_path / "probe" / "config.json").read_text())
    (tmp_path / "probe" / "config.json").write_text(json.dumps({**config, "backbone_fingerprint": None}))
    ProbeForImageClassification.from_pretrained(tmp_path / "probe", backbone=str(tmp_path / "other"))


def test_heads_of_a_sweep_need_different_parts_of_a_tower(tiny_backbone, tmp_path):
    """One head reads the projection and one does not: both are loaded again, though not with the same tensors."""
    heads = {"projected": HeadConfig("mean", tokens=("cls@projected",)), "plain": HeadConfig("mean")}
    runs = {name: HeadRun(head) for name, head in heads.items()}
    sweep = ProbeSweep.from_backbone(tiny_backbone("clip"), runs, labels=LABELS)
    for name in runs:
        sweep.probe(name).save_pretrained(tmp_path / name)
        loaded = ProbeForImageClassification.from_pretrained(tmp_path / name).eval()
        torch.testing.assert_close(loaded(pixels()).logits, sweep.probe(name).eval()(pixels()).logits)


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, init_lora_weights=False)], ids=["frozen", "lora"])
def test_self_contained(hub, backbone_on_hub, lora):
    """With the backbone in it, a repository needs no other; the backbone alone loads as a model of its own."""
    probe = new_probe(backbone_on_hub, lora=lora)
    probe.config.self_contained = True
    probe.push_to_hub(REPO)
    del hub.repositories["model", "me/vit"]
    loaded = ProbeForImageClassification.from_pretrained(REPO).eval()
    torch.testing.assert_close(loaded(pixels()).logits, probe(pixels()).logits)
    bare = AutoModel.from_pretrained(REPO, subfolder="backbone", add_pooling_layer=False)
    if lora is not None:
        bare = PeftModel.from_pretrained(bare, REPO, subfolder="lora")
    torch.testing.assert_close(bare.eval()(pixels()).last_hidden_state[:, 1:], probe.backbone(pixels())["last"].patches)


def test_the_adapter_repository_is_small_and_serves_peft(hub, backbone_on_hub):
    """`lora/` in the repository is PEFT's own layout: it loads on the bare backbone, and names backbone and commit."""
    probe = new_probe(backbone_on_hub, lora=LoraConfig(r=2, init_lora_weights=False))
    probe.push_to_hub(REPO)
    assert sum(map(len, hub.files(REPO).values())) < 600_000
    adapter = json.loads(hub.files(REPO)["lora/adapter_config.json"])
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("me/vit", probe.config.backbone_revision)
    bare = PeftModel.from_pretrained(
        ViTModel.from_pretrained("me/vit", add_pooling_layer=False), REPO, subfolder="lora"
    )
    torch.testing.assert_close(bare.eval()(pixels()).last_hidden_state[:, 1:], probe.backbone(pixels())["last"].patches)
    loaded = ProbeForImageClassification.from_pretrained(REPO).eval()
    torch.testing.assert_close(loaded(pixels()).logits, probe(pixels()).logits)


@pytest.mark.slow
def test_broken_transfers_leave_nothing_corrupt(hub, backbone_on_hub):
    """A failed upload changes no file; half a download is an error, and the next attempt is whole."""
    first, second = new_probe(backbone_on_hub), new_probe(backbone_on_hub)
    first.push_to_hub(REPO)
    hub.broken = ["lfs"]
    with pytest.raises(Exception, match="uploading"):
        second.push_to_hub(REPO)
    hub.broken = ["model.safetensors"]
    with pytest.raises(Exception, match=r"(?i)consist|peer|incomplete|closed|load"):
        ProbeForImageClassification.from_pretrained(REPO)
    hub.broken = []
    loaded = ProbeForImageClassification.from_pretrained(REPO).eval()
    torch.testing.assert_close(loaded(pixels()).logits, first(pixels()).logits)


def test_no_token_in_files_logs_or_errors(hub, backbone_on_hub, caplog, capfd, monkeypatch):
    """Whatever is uploaded, logged, printed or raised, the token is not in it."""
    with caplog.at_level(logging.DEBUG):
        new_probe(backbone_on_hub).push_to_hub(REPO, token=TOKEN, private=True)
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(OSError) as refusal:
            ProbeForImageClassification.from_pretrained(REPO)
        loaded = ProbeForImageClassification.from_pretrained(REPO, token=TOKEN)
    printed = "".join(capfd.readouterr())
    assert TOKEN not in caplog.text + printed + str(refusal.value) + repr(loaded.config)
    assert all(TOKEN.encode() not in content for content in hub.files(REPO).values())


def test_only_safetensors(tmp_path, tiny_backbone):
    """Nothing that is saved is a pickle."""
    probe = new_probe(tiny_backbone("vit"), lora=LoraConfig(r=2))
    probe.config.self_contained = True
    probe.save_pretrained(tmp_path)
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert endings == {".json", ".safetensors"}


def test_a_local_backbone_is_warned_of(hub, tiny_backbone, caplog):
    """A repository that nobody else can load is worth a warning; one that holds its backbone is not."""
    probe = new_probe(tiny_backbone("vit"))
    probe.push_to_hub(REPO)
    assert "nobody else can load this probe" in caplog.text
    caplog.clear()
    probe.config.self_contained = True
    probe.push_to_hub(REPO)
    assert "nobody" not in caplog.text


def test_folders_without_a_probe_are_refused(tmp_path):
    """Before anything is created on the Hub."""
    with pytest.raises(ValueError, match="holds no probe"):
        push_folder(tmp_path, REPO)
