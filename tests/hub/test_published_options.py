"""Every option of a published constructor is followed, or refused; none is ignored."""

import json

import pytest
import torch
from safetensors import safe_open

from attentive_probes.hub.published_heads import import_pooling
from golden_data import FOLDER, assert_golden, load_golden

with safe_open(FOLDER / "options.safetensors", "pt") as file:
    TENSORS = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    BUILT = {name: json.loads(text) for name, text in file.metadata().items()}


def state_of(name):
    prefix = f"{name}.state."
    return {key.removeprefix(prefix): tensor for key, tensor in TENSORS.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", sorted(BUILT.keys() - {"aim_bias"}))
def test_options_are_those_of_the_published_code(name):
    """Heads, widths, biases, blocks and queries beside the published defaults: outputs of the papers' own code."""
    built = BUILT[name]
    pooling = import_pooling(built["head"], built["constructor"], state_of(name), num_tokens=9, grid=(3, 3))
    assert_golden(pooling(TENSORS["input"]).features, TENSORS[f"{name}.output"])


@pytest.mark.parametrize(
    ("head", "argument", "message"),
    [
        ("coca", {"num_heads": 4}, "built with num_heads=4; only 1"),
        ("coca", {"haeds": 4}, "unknown argument haeds=4"),
        ("coca", {"norm_context": True}, "norm_context=True; only False"),
        ("simpool", {"gamma": 1.25}, "gamma=1.25; only None"),
        ("siglip", {"qk_norm": True}, "qk_norm=True; only False"),
        ("jepa", {"depth": 2}, "depth=2; only 1"),
        ("clip", {"qk_scale": 0.5}, "qk_scale=0.5; only None"),
    ],
)
def test_what_has_no_counterpart_is_refused(head, argument, message):
    """A head that would be another one is not imported."""
    golden = load_golden(head)
    with pytest.raises(ValueError, match=message):
        import_pooling(head, {**golden.constructor, **argument}, golden.group("state"), num_tokens=17)


def test_a_tensor_too_many_is_refused():
    """What no pooling here has would be lost: norms of queries, the bias of AIM's values."""
    golden = load_golden("siglip")
    state = {**golden.group("state"), "q_norm.weight": torch.ones(6)}
    with pytest.raises(ValueError, match=r"tensors that no pooling of ours has: \['q_norm.weight'\]"):
        import_pooling("siglip", golden.constructor, state, num_tokens=17)
    with pytest.raises(ValueError, match=r"tensors that no pooling of ours has: \['v.bias'\]"):
        import_pooling("aim", BUILT["aim_bias"]["constructor"], state_of("aim_bias"), num_tokens=9)
