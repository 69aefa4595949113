import pytest
import torch

from attentive_probes.configuration_probe import HeadConfig
from attentive_probes.head import ProbeHead
from attentive_probes.tokens import TokenLayout, Tokens
from golden_data import assert_golden, load_golden

NAMES = {"cls_token": "pooling.query", "v.weight": "pooling.value.weight"}


def golden_head(name: str) -> tuple[ProbeHead, dict[str, str]]:
    """A head with the published probe's weights, and published name -> our name."""
    golden = load_golden(name)
    state = golden.group("state")
    linear = name == "probe_linear"
    norm, classifier = ("0", "1") if linear else ("1", "2")
    ours = {f"{norm}.{key}": f"norm.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")}
    ours |= {f"{classifier}.{key}": f"classifier.{key}" for key in ("weight", "bias")}
    ours |= {} if linear else {f"0.{key}": value for key, value in NAMES.items()}
    width = golden.tensors["input"].shape[-1]
    config = HeadConfig("mean", tokens=("cls",))
    if not linear:
        values = state["0.v.weight"]
        config = HeadConfig("ep", {"num_queries": state["0.cls_token"].shape[1], "d_out": width // len(values)})
    head = ProbeHead(config, TokenLayout(width, 1, 0, (4, 4)), len(state[f"{classifier}.bias"]))
    tensors = {value: state[key] for key, value in ours.items()}
    if not linear:
        tensors["pooling.query"] = tensors["pooling.query"][0]
    head.load_state_dict(tensors)
    return head, ours


@pytest.mark.parametrize("name", ["probe_ep", "probe_ep_dout2", "probe_linear"])
def test_head_equals_the_papers_probe(name):
    """Logits in both modes, loss, gradients and statistics of the published probe are reproduced."""
    golden = load_golden(name)
    head, names = golden_head(name)
    tokens = golden.tensors["input"]
    tokens = tokens[:, None] if tokens.ndim == 2 else tokens
    assert_golden(head.eval()(tokens).logits, golden.tensors["logits"])
    logits = head.train()(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits, golden.tensors["labels"])
    loss.backward()
    assert_golden(logits, golden.tensors["logits_train"])
    assert_golden(loss, golden.tensors["loss_train"].reshape(()))
    parameters, state = dict(head.named_parameters()), head.state_dict()
    for key, gradient in golden.group("grad").items():
        assert_golden(parameters[names[key]].grad.reshape(gradient.shape), gradient)
    for key, buffer in golden.group("state_after").items():
        assert_golden(state[names[key]].reshape(buffer.shape), buffer)


def test_token_norm():
    """`l2` scales each token to unit length before the pooling."""
    head = ProbeHead(HeadConfig("mean", token_norm="l2"), TokenLayout(8, 0, 0, (2, 2)), 3)
    patches = torch.randn(2, 4, 8)
    sequence = head.read({"last": Tokens(patches[:, :0], patches[:, :0], patches, (2, 2))})
    assert torch.allclose(sequence.norm(dim=-1), torch.ones(2, 4), atol=1e-6)


def test_no_parameter_name_collides_with_conversions():
    """Checkpoint conversions of some backbones rewrite these words; no tensor of a head may contain them."""
    head = ProbeHead(HeadConfig(options={"num_queries": 4}), TokenLayout(8, 1, 0, (2, 2)), 3)
    for key in head.state_dict():
        assert not any(word in key for word in ("attention", "q_proj", "layer", "blocks")), key
