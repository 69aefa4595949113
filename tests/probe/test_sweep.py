import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.layers import queries
from attentive_probes.poolings import POOLINGS
from attentive_probes.probe.making.describe import layouts_of
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
    attend = queries.attend
    monkeypatch.setattr(queries, "attend", lambda *a: calls.append(a[1].shape[0]) or attend(*a))
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


SMALL = {"aim": {"num_attention_heads": 4}, "jepa": {"num_attention_heads": 4}}
EVERY = {name: HeadRun(HeadConfig(name, SMALL.get(name, {}))) for name in POOLINGS} | {
    "abmilp-pe": HeadRun(HeadConfig("abmilp", {"cond": "pe", "content": "patch"}, tokens=("cls", "patches"))),
    "abmilp-map": HeadRun(HeadConfig("abmilp", {"cond": "pe", "self_attention": "map"})),
    "alf-all": HeadRun(
        HeadConfig("alf", tokens=("cls@all", "mean@all"), token_norm="l2", feature_norm="batchnorm_affine")
    ),
    "concat-all": HeadRun(HeadConfig("concat", tokens=("cls@all", "mean@all"))),
    "ep-block": HeadRun(HeadConfig("ep", tokens=("patches@block:0",))),
    "alf-dropout": HeadRun(HeadConfig("alf", {"attention_dropout": 0.5}, token_norm="l2")),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_pooling_lives_in_a_probe(name, tiny_backbone, tmp_path):
    """Trained for two steps, saved and loaded: bit-equal weights, the same logits, attention over its tokens."""
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), {name: EVERY[name]}, num_labels=3).train()
    optimizer = torch.optim.AdamW(sweep.heads[name].parameters(), lr=0.01)
    pixels = torch.randn(4, 3, SIZE, SIZE)
    for _ in range(2):
        torch.nn.functional.cross_entropy(sweep(pixels)[name].logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
    probe = sweep.probe(name).eval()
    probe.save_pretrained(tmp_path)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    for key, tensor in probe.head.state_dict().items():
        assert torch.equal(tensor, loaded.head.state_dict()[key]), key
    expected, output = probe(pixels[:1]), loaded(pixels[:1])
    assert torch.allclose(output.logits, expected.logits, atol=1e-6)
    assert (
        output.attention.shape[-1]
        == loaded.head.reading.sequence_layout(layouts_of(loaded.config, loaded.head.reading)).num_tokens
    )


def test_all_poolings_together_are_each_alone(tiny_backbone):
    """One sweep of everything gives each head the gradients it has by itself; doubles, for CaiT's nearly cancel out."""
    runs = {name: run for name, run in EVERY.items() if name != "alf-dropout"}
    pixels, labels = torch.randn(4, 3, SIZE, SIZE).double(), torch.tensor([0, 1, 2, 0])

    def gradients(sweep):
        outputs = sweep.train()(pixels)
        sum(torch.nn.functional.cross_entropy(o.logits, labels) for o in outputs.values()).backward()
        return {f"{n}/{k}": p.grad for n, head in sweep.heads.items() for k, p in head.named_parameters()}

    together = gradients(ProbeSweep.from_backbone(tiny_backbone("vit"), runs, num_labels=3).double())
    for name, run in runs.items():
        alone = gradients(ProbeSweep.from_backbone(tiny_backbone("vit"), {name: run}, num_labels=3).double())
        for key, gradient in alone.items():
            assert torch.allclose(together[key], gradient, atol=1e-5, rtol=1e-4), key


def train_steps(folder, runs):
    sweep = ProbeSweep.from_backbone(folder, runs, num_labels=3).double().train()
    optimizer = torch.optim.SGD(sweep.parameters(), 0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        pixels, labels = torch.randn(4, 3, SIZE, SIZE, generator=generator).double(), torch.tensor([0, 1, 2, 0])
        outputs = sweep(pixels)
        sum(torch.nn.functional.cross_entropy(o.logits, labels) for o in outputs.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: dict(head.named_parameters()) for name, head in sweep.heads.items()}


def test_training_together_is_training_alone(tiny_backbone):
    """After eight steps in one sweep, every pooling has the weights that it reaches by itself."""
    runs = {name: run for name, run in EVERY.items() if name != "alf-dropout"}
    together = train_steps(tiny_backbone("vit"), runs)
    for name, run in runs.items():
        for key, parameter in train_steps(tiny_backbone("vit"), {name: run})[name].items():
            assert torch.allclose(together[name][key], parameter, atol=1e-5, rtol=1e-4), (name, key)


def test_all_layers_are_one_reading(tiny_backbone):
    """ALF over three blocks reads class token and mean of two blocks and the final norm, one head per token."""
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), {"alf": EVERY["alf-all"]}, num_labels=3).eval()
    head = sweep.heads["alf"]
    names = [str(item) for item in head.reading.items]
    assert names == [f"{kind}@{tap}" for tap in ("premlp:1", "premlp:2", "final") for kind in ("cls", "mean")]
    output = sweep(torch.randn(2, 3, SIZE, SIZE))["alf"]
    assert output.attention.shape == (2, 6, 6)
    assert list(head.reading.split(output.attention, layouts_of(sweep.config, head.reading))) == names
    assert sweep.probe("alf").config.head_config.tokens == ("cls@all", "mean@all")
