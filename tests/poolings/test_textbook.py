"""Folded forms are their textbook forms; counts and initial distributions are the published ones."""

import json

import pytest
import torch
from textbook import TEXTBOOK

from attentive_probes.hub.published_names import TRANSLATIONS
from attentive_probes.poolings import build_pooling
from attentive_probes.tokens import SequenceLayout
from golden_data import FOLDER

VARIANTS = [
    ("ep", {"num_queries": 8}),
    ("ep", {"num_queries": 4, "d_out": 2, "bias": True}),
    ("aim", {"num_attention_heads": 4}),
    ("aim", {"num_attention_heads": 4, "num_queries": 3}),
    ("cae", {"num_attention_heads": 4}),
    ("alf", {"num_attention_heads": 5}),
    ("alf", {}),
    ("jepa", {"num_attention_heads": 4, "mlp_ratio": 2.0}),
    ("siglip", {"num_attention_heads": 4}),
    ("coca", {"num_attention_heads": 3, "head_width": 16}),
    ("cait", {"num_attention_heads": 4}),
    ("cait", {"num_attention_heads": 4, "num_blocks": 3}),
    ("clip", {"num_attention_heads": 4}),
    ("simpool", {"num_attention_heads": 4, "qkv_bias": True}),
    ("abmilp", {}),
    ("abmilp", {"cond": "pe"}),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_folded_is_textbook_in_float64(name, options, training):
    """Features and all gradients agree to 1e-10, in both modes, on tokens with uneven channels and large means."""
    torch.manual_seed(0)
    pooling = build_pooling(name, 48, SequenceLayout(12, (3, 4)), options).double().train(training)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter, mean=0.3 * (parameter.ndim == 1), std=parameter.shape[-1] ** -0.5)
    tokens = torch.randn(3, 12, 48).double() * (1 + torch.arange(48) / 12) + torch.randn(48).double() + 0.5
    gradients = []
    outputs = []
    for form in (lambda x: TEXTBOOK[name](pooling, x), lambda x: pooling(x).features):
        pooling.zero_grad()
        features = form(tokens.clone().requires_grad_())
        features.pow(2).sum().backward()
        outputs.append(features)
        gradients.append({key: parameter.grad.clone() for key, parameter in pooling.named_parameters()})
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-10 * outputs[0].abs().max()
    for key, expected in gradients[0].items():
        assert (expected - gradients[1][key]).abs().max() <= 1e-10 * max(1, expected.abs().max()), key


# Published parameters of the pooling (EP paper's registry, D wide, N tokens), and those that are gone here because they
# have no effect: key biases, a key norm's bias, a gate's last bias, CoCa's 195 unread queries, CAE's unused norm.
D, N = 768, 196
PARAMETERS = {
    "ep": (32 * D + D * D, 0),
    "abmilp": (5 * D * D + 3 * D + 1, 1),
    "simpool": (2 * D * D + 2 * D, 0),
    "esimpool": (2 * D, 0),
    "clip": (4 * D * D + (N + 7) * D, D),
    "siglip": (12 * D * D + 10 * D, D),
    "aim": (2 * D * D + D, 0),
    "cbam": (2 * D * 48 + 100, 0),
    "coca": (1349 * D, 195 * D),
    "cait": (12 * D * D + 18 * D, D),
    "dinovit": (12 * D * D + 10 * D, 0),
    "jepa": (12 * D * D + 14 * D, D),
    "dolg": (D * D + 4 * D + 1, 0),
    "cae": (4 * D * D + 10 * D, 3 * D),
    "alf": (4 * D * 2 * D + 7 * D + D, D),
}
# Multiply-adds per image: as written, and folded where it helps.
H = {"clip": 4, "siglip": 8, "aim": 16, "coca": 8, "cait": 4, "jepa": 16, "cae": 8}
MULTIPLY_ADDS = {
    "ep": (N * 32 * D + N * D * D + N * D, 2 * N * 32 * D + D * D),
    "abmilp": (5 * N * D * D + 2 * N * N * D + 2 * N * D, None),
    "simpool": (D * D + N * D * D + 2 * N * D, 2 * D * D + 2 * N * D),
    "esimpool": (2 * N * D, None),
    "clip": (4 * (N + 1) * D * D + 2 * (N + 1) ** 2 * D, 4 * D * D + 4 * (N + 1) * 4 * D + N * D),
    "siglip": (2 * N * D * D + 2 * N * D + 10 * D * D, 2 * N * 8 * D + 10 * D * D),
    "aim": (2 * N * D * D + 2 * N * D, 2 * N * 16 * D + D * D),
    "cbam": (4 * D * 48 + 98 * N, None),
    "coca": (2 * 512 * D + 128 * N * D + 2 * 512 * N, 2 * N * 8 * D + 2 * 512 * D),
    "cait": (2 * (N + 1) * D * D + 2 * (N + 1) * D + 10 * D * D, 2 * (N + 1) * 4 * D + 10 * D * D),
    "dinovit": (12 * N * D * D + 2 * N * N * D, None),
    "jepa": (2 * N * D * D + 2 * N * D + 10 * D * D, 2 * N * 16 * D + 10 * D * D),
    "dolg": (N * D * D + N * D, None),
    "cae": (2 * N * D * D + 2 * N * D + 2 * D * D, 2 * N * 8 * D + 2 * D * D),
}
REGISTRY = {
    "aim": {"num_attention_heads": 16},
    "jepa": {"num_attention_heads": 16},
    "esimpool": {"num_attention_heads": 12},
    "abmilp": {"depth": 2, "activation": "tanh", "self_attention": "both"},
    "alf": {"num_attention_heads": 24},
}


def at_registry_defaults(name: str) -> torch.nn.Module:
    return build_pooling(name, D, SequenceLayout(N, (14, 14)), REGISTRY.get(name, {}))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    """The published count, less what has no effect."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in at_registry_defaults(name).parameters())
    published, dead = PARAMETERS[name]
    assert count == published - dead


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds(name):
    """The published formulas; CoCa's textbook form here counts the one query that is read."""
    with torch.device("meta"):
        textbook, folded = at_registry_defaults(name).multiply_adds()
    expected, expected_folded = MULTIPLY_ADDS[name]
    assert (textbook, folded) == (expected, expected if expected_folded is None else expected_folded)


class Marked(dict):
    """Published tensors, each filled with its own number; buffers that are not in the statistics are zero."""

    def __missing__(self, key: str) -> torch.Tensor:
        return torch.zeros(1)


@pytest.mark.parametrize("name", sorted(set(TRANSLATIONS) - {"alf"}))
def test_initial_distributions(name):
    """Mean, spread and range of every freshly drawn tensor are those of the published heads."""
    stats = json.loads((FOLDER / "init_stats.json").read_text())["heads"][name]
    stats = {key[2:]: value for key, value in stats.items() if key.startswith("0.")}
    marked = Marked({key: torch.full(value["shape"], float(i)) for i, (key, value) in enumerate(stats.items())})
    source = TRANSLATIONS[name].tensors(marked)
    torch.manual_seed(0)
    published = list(stats.values())
    for key, parameter in at_registry_defaults(name).named_parameters():
        expected = published[int(source[key].flatten()[0])]
        if parameter.numel() == 1 and expected["mean"] not in (0, 1):  # one draw has no spread: a bias in its range
            assert parameter.abs().item() <= D**-0.5
            continue
        spread = 5 * max(expected["std"], 1e-12) / parameter.numel() ** 0.5
        assert parameter.mean().item() == pytest.approx(expected["mean"], abs=2 * spread), key
        if parameter.numel() > 1:
            assert parameter.std().item() == pytest.approx(expected["std"], abs=2 * spread), key
        if expected["std"] == 0:
            assert parameter.abs().max().item() == pytest.approx(expected["absmax"]), key
        elif parameter.numel() > 10_000:
            assert parameter.abs().max().item() == pytest.approx(expected["absmax"], rel=0.2), key
