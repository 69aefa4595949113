import json
import math

import pytest
import torch
from safetensors import safe_open

from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head import ProbeHead
from attentive_probes.tokens import SequenceLayout
from attentive_probes.training.steps.lars import LARS
from attentive_probes.training.steps.optimizers import HeadRates, build_optimizer, build_schedule, split_parameters
from golden_data import FOLDER


@pytest.mark.parametrize("run", ["wd0", "wd", "edge"])
def test_lars_is_the_published_one(run):
    """Five steps of the golden runs: vectors unscaled, zeros unscaled, tensors without gradient untouched."""
    with safe_open(FOLDER / "lars.safetensors", "pt") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    start = f"{run}.init."
    parameters = {k.removeprefix(start): torch.nn.Parameter(v) for k, v in golden.items() if k.startswith(start)}
    optimizer = LARS(
        parameters.values(),
        momentum=float(metadata["momentum"]),
        trust_coefficient=float(metadata["trust_coefficient"]),
        weight_decay=float(metadata[f"weight_decay.{run}"]),
    )
    for step, rate in enumerate(json.loads(metadata["lrs"])):
        optimizer.param_groups[0]["lr"] = rate
        for name, parameter in parameters.items():
            parameter.grad = golden.get(f"{run}.grad.{step}.{name}")
        optimizer.step()
        for name, parameter in parameters.items():
            expected = golden[f"{run}.param.{step}.{name}"]
            assert torch.allclose(parameter, expected, rtol=1e-6, atol=1e-7), (step, name)


def test_the_schedule_is_the_published_one():
    """Warm-up from zero, then a half-cosine, at every iteration of the golden cases."""
    for case in json.loads((FOLDER / "lr_schedule.json").read_text())["cases"]:
        num_steps = case["epochs"] * case["steps_per_epoch"]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=case["peak_lr"])
        schedule = build_schedule(optimizer, num_steps, case["warmup_epochs"] / case["epochs"], case["min_lr"])
        for epoch, iteration, expected in case["values"]:
            step = epoch * case["steps_per_epoch"] + iteration
            found = case["peak_lr"] * schedule.lr_lambdas[0](step)
            if step < case["warmup_epochs"] * case["steps_per_epoch"] or not case["min_lr"]:
                assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12), (case, step)
            else:
                assert math.isclose(found, expected, rel_tol=1e-6), (case, step)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_every_head_has_its_own_rates(name):
    """Parameter groups per head, with its learning rate and weight decay; a step moves each by its own."""
    heads = {"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)}
    rates = {"a": HeadRates(0.1, 0.0), "b": HeadRates(0.0, 0.5)}
    optimizer = build_optimizer(name, heads, rates, 0.9)
    before = {key: head.weight.clone() for key, head in heads.items()}
    sum(head(torch.ones(2, 3)).square().sum() for head in heads.values()).backward()
    optimizer.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.5, 0.0]
    assert not torch.equal(heads["a"].weight, before["a"])
    assert torch.equal(heads["b"].weight, before["b"])


@pytest.mark.parametrize("pooling", ["cae", "cait", "ep", "coca", "mean"])
def test_weight_decay_shrinks_maps_alone(pooling):
    """Biases, norms, learned scales and queries are left as they are."""
    head = ProbeHead(HeadConfig(pooling, feature_norm="batchnorm_affine"), 64, SequenceLayout(4, (2, 2)), 3)
    decayed, free = split_parameters(head)
    names = {id(parameter): name.rpartition(".")[2] for name, parameter in head.named_parameters()}
    assert len(decayed) + len(free) == len(names)
    assert all(names[id(p)] == "weight" and p.ndim == 2 for p in decayed)
    assert {names[id(p)] for p in free} <= {"bias", "weight", "gamma1", "gamma2", "query_scale", "query"}
    assert all(p.ndim == 1 or names[id(p)] == "query" for p in free)
