"""State and identity are by name and place: exchanged blocks, reordered heads and damaged files are noticed."""

import copy
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, TrainingArguments, pipeline
from transformers.trainer_callback import TrainerControl, TrainerState

from attentive_probes import HeadConfig, HeadRun, OnlineProbes, ProbeForImageClassification, ProbeSweep
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.files.fingerprint import older_fingerprint, same_tensors, tensor_fingerprint
from attentive_probes.tokens import Tokens
from attentive_probes.training.online_callbacks import OnlineProbesCallback, lightning_callback
from tiny import image_dataset


def exchanged(folder, target, first=0, second=2):
    """A copy of a checkpoint in which two blocks have each other's tensors."""
    target.mkdir()
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    state = load_file(folder / "model.safetensors")
    swapped = {}
    for name, tensor in state.items():
        parts = name.split(".")
        numbers = {str(first): str(second), str(second): str(first)}
        swapped[".".join(numbers.get(part, part) for part in parts)] = tensor
    save_file(swapped, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture
def probe(tiny_backbone):
    head = HeadConfig("ep", {"num_queries": 4})
    return ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=3).eval()


def test_exchanged_blocks_are_another_backbone(probe, tiny_backbone, tmp_path):
    """The same tensors in other places: a probe does not load on them, nor are cached tokens taken for theirs."""
    other = exchanged(Path(tiny_backbone("vit")), tmp_path / "other")
    probe.save_pretrained(tmp_path / "probe")
    with pytest.raises(ValueError, match="have the fingerprint"):
        ProbeForImageClassification.from_pretrained(tmp_path / "probe", backbone=str(other))
    swapped = ProbeForImageClassification.from_backbone(str(other), HeadConfig("ep", {"num_queries": 4}), num_labels=3)
    assert not probe.backbone.has_hash(swapped.backbone.hash_weights())  # the key of a token cache
    assert probe.backbone.has_hash(probe.backbone.hash_weights())


def test_an_own_module_whose_layers_changed_places(tmp_path):
    """A module of one's own is known by its tensors and which is where."""
    first = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    second = nn.Sequential(first[2], nn.ReLU(), first[0])
    one, other = (tensor_fingerprint(module.state_dict()) for module in (first, second))
    assert not same_tensors(one, other) and same_tensors(one, tensor_fingerprint(copy.deepcopy(first).state_dict()))


def test_new_names_or_another_order_are_the_same_weights():
    """What a release of a library changes, one at a time: names, or the order in which modules are made."""
    state = {name: torch.randn(3, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("abcd")}
    found = tensor_fingerprint(state)
    assert same_tensors(found, tensor_fingerprint({f"encoder.{name}": tensor for name, tensor in state.items()}))
    assert same_tensors(found, tensor_fingerprint(dict(reversed(state.items()))))
    assert not same_tensors(
        found, tensor_fingerprint({"a": state["b"], "b": state["a"], "c": state["c"], "d": state["d"]})
    )
    assert not same_tensors(f"float32:{found}", f"float16:{found}")


def test_fingerprints_of_earlier_releases_are_read(probe, tmp_path):
    """A probe that was saved before loads as it did."""
    probe.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["backbone_fingerprint"] = f"float32:{older_fingerprint(probe.backbone.weights())}"
    (tmp_path / "config.json").write_text(json.dumps(content))
    ProbeForImageClassification.from_pretrained(tmp_path)
    content["backbone_fingerprint"] = "float32:" + "0" * 32
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="have the fingerprint"):
        ProbeForImageClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("bit", [100, 2000, -3])
def test_a_damaged_probe_does_not_answer(probe, tmp_path, bit):
    """One bit of the tensors: loading says so, with the file and the way out."""
    probe.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + bit if bit > 0 else bit] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors.*not those that were saved.*copy it again"):
        ProbeForImageClassification.from_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "tensors_checksum": None}))
    ProbeForImageClassification.from_pretrained(tmp_path)


def test_a_damaged_adapter_does_not_load(tiny_backbone, tmp_path):
    """Likewise the adapter in its folder."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2)
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), num_labels=3, lora=lora)
    probe.save_pretrained(tmp_path)
    ProbeForImageClassification.from_pretrained(tmp_path)
    path = tmp_path / "lora" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"adapter_model.safetensors.*not those that were saved"):
        ProbeForImageClassification.from_pretrained(tmp_path)


def test_a_complete_run_mends_a_damaged_probe(recipe_file, tmp_path):
    """A resumed run writes a probe of its folder again that is not as it was saved."""
    changes = ["evaluation.report=false"]
    results = run_recipe(Recipe.load(recipe_file, changes))
    recipe = Recipe.load(recipe_file, [*changes, "train.resume=true"])
    path = Path(recipe.train.output_dir) / "probes" / results.best.name / "model.safetensors"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[-2] ^= 1
    path.write_bytes(content)
    run_recipe(recipe)
    assert load_file(path).keys() and path.read_bytes() == whole


def tokens(seed):
    draw = torch.Generator().manual_seed(seed)
    patches = torch.randn(8, 9, 16, generator=draw)
    return Tokens(torch.zeros(8, 0, 16), torch.zeros(8, 0, 16), patches, (3, 3)), torch.arange(8) % 2


HEADS = {"fast-lr0.5": HeadRun(HeadConfig("mean"), learning_rate=0.5), "slow": HeadRun(HeadConfig("mean"), 0.001)}


def test_online_state_is_by_name():
    """Heads in another order get their own tensors, moments and rates; heads of other names are refused."""
    first = OnlineProbes(HEADS, 2)
    for seed in range(4):
        first.update(*tokens(seed))
    state = copy.deepcopy(first.state_dict())
    turned = OnlineProbes(dict(reversed(HEADS.items())), 2)
    turned.load_state_dict(state)
    for seed in range(4, 7):
        losses, others = (probes.update(*tokens(seed)) for probes in (first, turned))
        for name in HEADS:
            assert losses[name].item() == pytest.approx(others[name].item(), rel=1e-6)
    for name, head in first.heads.items():
        assert torch.allclose(head.classifier.weight, turned.heads[name].classifier.weight)
    with pytest.raises(ValueError, match="load it into heads of the same names"):
        OnlineProbes({"a": HeadConfig("mean"), "b": HeadConfig("mean")}, 2).load_state_dict(state)


def test_a_sweep_is_stored_by_name(tiny_backbone):
    """State dicts of sweeps name their heads, dots and all."""
    sweeps = [
        ProbeSweep.from_backbone(tiny_backbone("vit"), dict(runs), num_labels=3)
        for runs in (HEADS.items(), reversed(HEADS.items()))
    ]
    with torch.no_grad():
        sweeps[0].heads["slow"].classifier.weight.fill_(7.0)
    assert list(sweeps[0].heads) == list(HEADS)
    sweeps[1].load_state_dict(sweeps[0].state_dict())
    assert (sweeps[1].heads["slow"].classifier.weight == 7.0).all()
    assert not (sweeps[1].heads["fast-lr0.5"].classifier.weight == 7.0).any()
    other = ProbeSweep.from_backbone(tiny_backbone("vit"), {"x": HEADS["slow"], "y": HEADS["slow"]}, num_labels=3)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(sweeps[0].state_dict())


def callback(**options):
    probes = OnlineProbes({"linear": HeadConfig("mean")}, 2)
    batches = options.pop("batches", [1])
    return OnlineProbesCallback(probes, lambda model, batch: tokens(batch), batches, [2], evaluate_every=2, **options)


def steps(callbacks, folder, first, last, args=None):
    """What a Trainer calls, with callbacks of its own, from one step to another, saving at the end."""
    args = args or TrainingArguments(str(folder), use_cpu=True, report_to=[])
    state = TrainerState(global_step=first, max_steps=last)
    model, control = nn.Linear(1, 1), TrainerControl()
    path = folder / "trainer_state.json"
    if first and path.exists():
        state = TrainerState.load_from_json(str(path))
    for each in callbacks:
        each.on_train_begin(args, state, control, model=model)
    for step in range(first + 1, last + 1):
        state.global_step = step
        for each in callbacks:
            each.on_step_end(args, state, control, model=model)
    place = folder / f"checkpoint-{last}"
    place.mkdir(parents=True, exist_ok=True)
    state.save_to_json(str(place / "trainer_state.json"))
    for each in callbacks:
        each.on_save(args, state, control, model=model)
    return place


def weight(one):
    return one.probes.heads["linear"].classifier.weight.detach().clone()


def test_two_callbacks_keep_apart(tmp_path):
    """Two in one Trainer have files, logs and states of their own; two of one name are refused."""
    pair = [callback(batches=[1]), callback(batches=[5])]
    place = steps(pair, tmp_path, 0, 4)
    again = [callback(batches=[1]), callback(batches=[5])]
    state = TrainerState.load_from_json(str(place / "trainer_state.json"))
    for each in again:
        each.on_train_begin(TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]), state, None, model=None)
    for before, after in zip(pair, again, strict=True):
        assert torch.equal(weight(before), weight(after)) and len(after.history) == 2
    assert not torch.equal(weight(again[0]), weight(again[1]))
    assert (tmp_path / "online_probes.json").exists() and (tmp_path / "online_probes-2.json").exists()
    assert any("2/linear/top1" in row for row in state.log_history)
    with pytest.raises(ValueError, match="are called 'a'"):
        steps([callback(name="a"), callback(name="a")], tmp_path / "x", 0, 1)


def test_resumed_elsewhere(tmp_path, caplog):
    """A run that goes on in another folder takes its probes along; where there is no state, a warning says where."""
    first = callback()
    place = steps([first], tmp_path / "old", 0, 4)
    state = TrainerState.load_from_json(str(place / "trainer_state.json"))
    args = TrainingArguments(str(tmp_path / "new"), use_cpu=True, report_to=[])
    again = callback()
    again.on_train_begin(args, state, None, model=None)
    assert torch.equal(weight(first), weight(again)) and len(again.history) == 2
    (place / "online_probes.pt").unlink()
    state = TrainerState.load_from_json(str(place / "trainer_state.json"))
    with caplog.at_level(logging.WARNING):
        callback().on_train_begin(args, state, None, model=None)
    assert f"{place / 'online_probes.pt'}" in caplog.text and "resume_from" in caplog.text
    moved = tmp_path / "moved"
    steps([first], tmp_path / "old", 0, 4).rename(moved)
    state = TrainerState.load_from_json(str(moved / "trainer_state.json"))
    named = callback(resume_from=moved)
    named.on_train_begin(args, state, None, model=None)
    assert torch.equal(weight(first), weight(named))


@pytest.mark.parametrize("batches", [iter([1, 2]), []], ids=["one pass", "empty"])
def test_batches_that_end(tmp_path, batches):
    """A generator that is used up, or a loader without a batch, is an error, and no wait without end."""
    with pytest.raises(ValueError, match=r"train_batches gave no batch \(again\): pass a list or a DataLoader"):
        steps([callback(batches=batches)], tmp_path, 0, 4)
    once = callback()
    once.validation_batches = iter([2])
    with pytest.raises(ValueError, match="validation_batches gave no batch"):
        steps([once], tmp_path / "other", 0, 4)


def test_lightning_keeps_callbacks_apart():
    """Two callbacks have state keys of their own, by themselves or by name."""
    pytest.importorskip("lightning")
    probes = [OnlineProbes({"linear": HeadConfig("mean")}, 2) for _ in range(3)]
    held = [lightning_callback(one, None) for one in probes[:2]] + [lightning_callback(probes[2], None, name="held")]
    assert len({one.state_key for one in held}) == 3 and held[2].state_key.endswith("-held")


def test_features_are_features(probe, tmp_path):
    """`AutoModel` and the pipeline of features give what the pooling made, not the logits."""
    probe.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).eval()
    image = image_dataset(1)[0]["image"]
    pixels = probe.image_processor([image], return_tensors="pt")["pixel_values"]
    expected = probe(pixels)
    assert torch.allclose(model(pixels)[0], expected.features) and torch.allclose(model(pixels).logits, expected.logits)
    extract = pipeline("image-feature-extraction", model=str(tmp_path), image_processor=probe.image_processor)
    assert np.allclose(np.array(extract(image)), expected.features.detach().numpy(), atol=1e-4)
