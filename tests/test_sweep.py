import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.poolings import base
from tiny import SIZE

RUNS = {
    "ep8": HeadRun(HeadConfig("ep", {"num_queries": 8})),
    "ep-lr0.01": HeadRun(HeadConfig("ep", {"num_queries": 4}), learning_rate=0.01),
    "ep-prenorm": HeadRun(HeadConfig("ep", {"num_queries": 4}, tokens=("patches@prenorm",))),
    "ep-l2": HeadRun(HeadConfig("ep", {"num_queries": 4}, token_norm="l2")),
    "cls": HeadRun(HeadConfig("mean", tokens=("cls",))),
    "gap": HeadRun(HeadConfig("mean")),
}


@pytest.fixture
def sweep(tiny_backbone):
    return ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, num_labels=3).eval()


def test_a_head_in_a_sweep_is_the_head_alone(sweep, tiny_backbone):
    """Same initial weights and same outputs as a sweep of that head only, whatever its neighbours."""
    pixels = torch.randn(2, 3, SIZE, SIZE)
    together = sweep(pixels)
    assert list(together) == list(RUNS)
    for name, run in RUNS.items():
        alone = ProbeSweep.from_backbone(tiny_backbone("vit"), {name: run}, num_labels=3).eval()(pixels)[name]
        assert torch.allclose(together[name].logits, alone.logits, atol=1e-6), name
        assert torch.allclose(together[name].attention, alone.attention, atol=1e-6), name


def test_tokens_are_read_once(sweep, monkeypatch):
    """One backbone pass for all heads, and one call of attend for all heads that read the same tokens."""
    passes, calls = [], []
    sweep.backbone.model.register_forward_hook(lambda *_: passes.append(1))
    attend = base.attend
    monkeypatch.setattr(base, "attend", lambda *a: calls.append(a[1].shape[0]) or attend(*a))
    sweep(torch.randn(2, 3, SIZE, SIZE))
    assert len(passes) == 1
    assert sorted(calls) == [4, 4, 12]


def test_probe_shares_the_heads_weights(sweep, tmp_path):
    """A probe taken from a sweep gives the sweep's logits, and saves and loads like any other."""
    pixels = torch.randn(2, 3, SIZE, SIZE)
    expected = sweep(pixels)
    for name in RUNS:
        probe = sweep.probe(name).eval()
        assert torch.allclose(probe(pixels).logits, expected[name].logits, atol=1e-6)
        probe.save_pretrained(tmp_path / name)
        loaded = type(probe).from_pretrained(tmp_path / name).eval()
        assert torch.allclose(loaded(pixels).logits, expected[name].logits, atol=1e-6)
    with pytest.raises(KeyError):
        sweep.probe("no such head")


def test_taking_a_probe_changes_no_weight(sweep):
    """`probe` draws no new weights into the trained head or the backbone."""
    before = {key: tensor.clone() for key, tensor in sweep.state_dict().items()}
    sweep.probe("ep8")
    assert all(torch.equal(tensor, before[key]) for key, tensor in sweep.state_dict().items())


def test_wrong_heads_are_named(tiny_backbone):
    """The error names the head; an empty sweep is refused."""
    runs = {"good": RUNS["ep8"], "bad": HeadRun(HeadConfig("ep", {"num_queries": 5}))}
    with pytest.raises(ValueError, match="Head 'bad': num_queries=5 does not divide"):
        ProbeSweep.from_backbone(tiny_backbone("vit"), runs, num_labels=3)
    with pytest.raises(ValueError, match="at least one head"):
        ProbeSweep.from_backbone(tiny_backbone("vit"), {}, num_labels=3)
