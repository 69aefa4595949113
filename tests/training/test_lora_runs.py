"""Runs that train an adapter: recipes, rates, resume, several processes, refusals."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from attentive_probes import ProbeForImageClassification
from attentive_probes.data.load import load_split
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.runs.history import read_history
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import profile_recipe, run_recipe
from attentive_probes.training.steps import loop as loop_module

LORA = [
    "grid={}",
    "lora.r=4",
    "evaluation.baseline=null",
    "evaluation.attention_head=null",
    "train.lora_learning_rate=0.01",
]


@pytest.fixture
def load(recipe_file, tmp_path):
    """The small recipe with one head and an adapter, and with changes."""

    def call(*changes, folder="run"):
        content = yaml.safe_load(recipe_file.read_text())
        content["heads"].pop("gap", None)
        recipe_file.write_text(yaml.safe_dump(content))
        return Recipe.load(recipe_file, [*LORA, f"train.output_dir={tmp_path / folder}", *changes])

    return call


def adapter_of(folder):
    probe = ProbeForImageClassification.from_pretrained(folder)
    return {name: p.detach().clone() for name, p in probe.backbone.adapter.parameters().items()}


def test_a_run_trains_saves_and_labels(load, tmp_path):
    """The selected epoch's adapter is in the saved probe, which scores as the run said; the results say lora."""
    results = run_recipe(load())
    assert results.adaptation == "lora"
    assert "(lora)" in results.table().title
    folder = tmp_path / "run" / "probes" / "ep"
    probe = ProbeForImageClassification.from_pretrained(folder)
    adapter = sum(p.numel() for p in probe.backbone.adapter.parameters().values())
    assert results.heads[0].trainable_parameters == adapter + sum(p.numel() for p in probe.head.parameters())
    scored = evaluate_probe(probe, load_split(str(tmp_path / "data"), "test"))
    assert scored["top1"] == pytest.approx(results.heads[0].test["top1"])
    assert scored["loss"] == pytest.approx(results.heads[0].test["loss"], abs=1e-5)
    assert any(p.abs().max() > 0 for name, p in adapter_of(folder).items() if "lora_B" in name)


def test_separate_learning_rates(load, tmp_path):
    """With rate 0 the adapter stays where it started, while the head learns."""
    run_recipe(load("train.lora_learning_rate=0.0"))
    still = adapter_of(tmp_path / "run" / "probes" / "ep")
    assert all(p.abs().max() == 0 for name, p in still.items() if "lora_B" in name)
    results = run_recipe(
        load("train.learning_rate=1e-12", "heads.ep.learning_rate=0.05", "train.lora_learning_rate=null", folder="b")
    )
    moved = adapter_of(tmp_path / "b" / "probes" / "ep")
    assert max(p.abs().max() for name, p in moved.items() if "lora_B" in name) < 1e-9
    assert results.heads[0].history[-1]["train_loss"] < results.heads[0].history[0]["train_loss"]


def test_resume_bit_for_bit(load, tmp_path, monkeypatch):
    """An interrupted run with adapter dropout goes on to the same adapter and history."""
    dropout = "lora.lora_dropout=0.3"
    expected = run_recipe(load(dropout, folder="whole"))
    original, seen = loop_module.TrainingLoop._step, []

    def step(self, batch):
        if len(seen) == 12:
            raise KeyboardInterrupt
        seen.append(1)
        return original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop_module.TrainingLoop, "_step", step)
        run_recipe(load(dropout, folder="cut"))
    resumed = run_recipe(load(dropout, "train.resume=true", folder="cut"))
    assert resumed.heads[0].history == expected.heads[0].history
    adapters = [adapter_of(tmp_path / run / "probes" / "ep") for run in ("whole", "cut")]
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(load, recipe_file, tmp_path):
    """Gradients of the adapter are averaged over processes, also where the head reads an early block."""
    load()
    reports = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += ["-m", "attentive_probes.cli", "train", str(recipe_file), *LORA, "heads.ep.tokens=[patches@block:1]"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        folder = tmp_path / f"run{processes}"
        subprocess.run([*command, f"train.output_dir={folder}"], check=True, env=environment, capture_output=True)
        reports.append(next(iter(read_history(folder).values())))
    for first, second in zip(*reports, strict=True):
        assert first == pytest.approx(second, abs=1e-3)


def test_linear_probing_then_fine_tuning(load, tmp_path):
    """`lora.start_from` begins with a trained head; one of another backbone, head or with an adapter is refused."""
    run_recipe(load("lora=null", folder="frozen"))
    frozen = tmp_path / "frozen" / "probes" / "ep"
    changes = [f"lora.start_from={frozen}", "train.learning_rate=1e-12", "train.lora_learning_rate=1e-12"]
    run_recipe(load(*changes, "train.num_train_epochs=1"))
    heads = [ProbeForImageClassification.from_pretrained(f).head for f in (frozen, tmp_path / "run" / "probes" / "ep")]
    for first, second in zip(*(head.parameters() for head in heads), strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="cannot be the start: its head"):
        run_recipe(load(f"lora.start_from={frozen}", "heads.ep.options.num_queries=8", folder="c"))
    with pytest.raises(ValueError, match="cannot be the start: its adapter"):
        run_recipe(load(f"lora.start_from={tmp_path / 'run' / 'probes' / 'ep'}", folder="d"))


def test_the_start_of_a_stranger_runs_no_code(load, tmp_path):
    """A probe whose backbone brings code is refused before the code is looked for."""
    run_recipe(load("lora=null", folder="frozen"))
    path = tmp_path / "frozen" / "probes" / "ep" / "config.json"
    config = json.loads(path.read_text())
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config["backbone_config"] |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    config["backbone_name_or_path"] = str(tmp_path / "strange")
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="brings its own code"):
        run_recipe(load(f"lora.start_from={path.parent}", folder="run"))
    assert not (tmp_path / "ran").exists()


def test_no_profile(load):
    """Where backbone and head are one step, stages cannot be told apart."""
    with pytest.raises(ValueError, match="lora=null"):
        profile_recipe(load())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("grid.learning_rate=[0.1,0.01]", "An adapter belongs to one head"),
        ("data.tokens=cached", "train it with data.tokens=online"),
        ("evaluation.references.knn.method=knn", "describe a frozen backbone"),
        ("lora.options.rank=3", "unexpected keyword argument 'rank'"),
        ("lora.target_modules=[qv]", "linear layers are"),
    ],
)
def test_refusals(load, change, message, tmp_path):
    """Whatever cannot be meant is refused before anything is trained."""
    with pytest.raises(ValueError, match=message):
        run_recipe(load(change))
    assert not (tmp_path / "run").exists()
