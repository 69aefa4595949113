"""In half precision a folded head is as close to the truth as its textbook form, on tokens that are hard to fold."""

import copy

import pytest
import torch
from textbook import TEXTBOOK

from attentive_probes.layers import precision
from attentive_probes.layers.precision import multiplies_in_half
from attentive_probes.poolings import build_pooling
from attentive_probes.tokens import SequenceLayout

WIDTH, GRID = 96, (7, 7)
HEADS = {"num_attention_heads": 4}
VARIANTS = [
    ("ep", {"num_queries": 8}), ("aim", HEADS), ("cae", HEADS), ("alf", HEADS), ("jepa", HEADS), ("siglip", HEADS),
    ("coca", {"num_attention_heads": 3, "head_width": 16}), ("cait", HEADS), ("cait", {**HEADS, "num_blocks": 2}),
    ("clip", HEADS), ("simpool", HEADS), ("abmilp", {}),
]  # fmt: skip


def tokens_of(kind):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(16, GRID[0] * GRID[1], WIDTH, generator=generator)
    if kind == "massive":  # a few channels dwarf all others, as reported of large backbones before the last norm
        tokens[..., 3], tokens[..., 40] = 200 + 20 * tokens[..., 3], -80 + tokens[..., 40]
    return 30 + 0.3 * tokens if kind == "offset" else tokens


def drawn(name, options):
    torch.manual_seed(0)
    pooling = build_pooling(name, WIDTH, SequenceLayout(GRID[0] * GRID[1], GRID), options).train()
    for parameter in pooling.parameters():
        is_gain = parameter.ndim == 1 and len(parameter) == WIDTH
        torch.nn.init.normal_(parameter, mean=float(is_gain), std=parameter.shape[-1] ** -0.5)
    return pooling


def error(features, expected):
    return ((features.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("has_bfloat16", [False, True])
@pytest.mark.parametrize("kind", ["plain", "massive", "offset"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_no_further_from_the_truth_than_the_textbook(name, options, half, kind, has_bfloat16, monkeypatch):
    """Autocast over float32 and over half tokens, and weights in half: at most twice its error in float64."""
    monkeypatch.setattr(precision, "CPU_HAS_BFLOAT16", has_bfloat16)  # as accelerators and some CPUs do
    pooling = drawn(name, options)
    for weights, tokens in (("full", torch.float32), ("full", half), ("half", half)):
        inputs = tokens_of(kind).to(tokens)
        expected = TEXTBOOK[name](copy.deepcopy(pooling).double(), inputs.double())
        model = copy.deepcopy(pooling).to(torch.float32 if weights == "full" else half)
        with torch.no_grad(), torch.autocast("cpu", half, enabled=weights == "full"):
            textbook = error(TEXTBOOK[name](copy.deepcopy(model), inputs), expected)
            ours = error(model(inputs).features, expected)
        assert ours <= 2 * textbook, (weights, tokens, ours, textbook)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_float32_loses_little(name, options):
    """On tokens with a mean of a hundred deviations the error stays below 1e-4, where squares of means gave 1e-3."""
    pooling, inputs = drawn(name, options), tokens_of("offset")
    expected = TEXTBOOK[name](copy.deepcopy(pooling).double(), inputs.double())
    assert error(pooling(inputs).features, expected) < 1e-4


def test_what_multiplies_in_half(monkeypatch):
    """bfloat16 where tokens or autocast say so and the device has it; never float16, whose range is small."""
    tokens = torch.empty(1, 2, 4, dtype=torch.bfloat16)
    assert multiplies_in_half(tokens.to("meta")) and not multiplies_in_half(tokens.to("meta").half())
    for has_bfloat16 in (False, True):
        monkeypatch.setattr(precision, "CPU_HAS_BFLOAT16", has_bfloat16)
        assert multiplies_in_half(tokens) == has_bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert multiplies_in_half(tokens.float()) == has_bfloat16
        with torch.autocast("cpu", torch.float16):
            assert not multiplies_in_half(tokens)
