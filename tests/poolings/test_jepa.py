"""V-JEPA's pooler with blocks before its cross-attention: that of V-JEPA 2."""

import pytest
import torch
from transformers import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler

from attentive_probes.poolings import build_pooling
from attentive_probes.tokens import SequenceLayout


def copied(theirs, ours):
    """Tensors of transformers' pooler under the names of ours."""
    state = {"query": theirs["query_tokens"].flatten()}
    for key, tensor in theirs.items():
        own, _, rest = key.replace("layer_norm", "norm").rpartition(".")
        if key.startswith("self_attention_layers"):
            number, part = own.split(".")[1], own.split(".", 2)[2]
            part = part.replace("self_attn.out_proj", "out_map")
            if part.startswith("self_attn"):
                maps = [theirs[f"self_attention_layers.{number}.self_attn.{kind}_proj.{rest}"] for kind in "qkv"]
                part, tensor = "qkv", torch.cat(maps)
            state[f"stages.{number}.{part}.{rest}"] = tensor
        elif key.startswith("cross_attention_layer"):
            part = own.removeprefix("cross_attention_layer.")
            for short, long in (("q", "query"), ("k", "key"), ("v", "value")):
                part = part.replace(f"cross_attn.{short}_proj", f"{long}_map")
            state[f"{part}.{rest}"] = tensor
    return {key: state[key] for key in ours}  # without the key bias, which has no effect


@pytest.mark.parametrize("depth", [1, 3])
def test_it_is_the_pooler_of_v_jepa_2(depth):
    """Transformers' own pooler, all of its weights away from their start, gives the same features and gradients."""
    torch.manual_seed(0)
    config = VJEPA2Config(
        hidden_size=32, num_attention_heads=4, num_pooler_layers=depth, layer_norm_eps=1e-5, attention_dropout=0.0
    )
    theirs = VJEPA2AttentivePooler(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    options = {"num_attention_heads": 4, "num_self_blocks": depth, "output_map": False}
    ours = build_pooling("jepa", 32, SequenceLayout(10), options)
    ours.load_state_dict(copied(theirs.state_dict(), ours.state_dict()))
    tokens = torch.randn(3, 10, 32, requires_grad=True)
    found, expected = ours(tokens).features, theirs(tokens)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(
        *(torch.autograd.grad(part.square().sum(), tokens)[0] for part in (found, expected)), atol=1e-3
    )


def test_deep_maps_start_smaller():
    """Output maps of block i start over sqrt(2 i); the cross-attention counts as the last block."""
    torch.manual_seed(0)
    pooling = build_pooling("jepa", 240, SequenceLayout(4), {"num_self_blocks": 3})
    maps = [*(block.out_map for block in pooling.stages), pooling.out_map, pooling.query_map]
    found = [linear.weight.std().item() for linear in maps]
    assert found == pytest.approx([0.02 * (2 * i) ** -0.5 for i in (1, 2, 3, 3)] + [0.02], rel=0.05)
