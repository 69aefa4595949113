import pytest
import torch

from attentive_probes.configuration_probe import HeadConfig
from attentive_probes.head import ProbeHead
from attentive_probes.hub.published_heads import import_probe_head
from attentive_probes.poolings import POOLINGS, pooling_options
from attentive_probes.tokens import SequenceLayout, Tokens
from golden_data import assert_golden, load_golden


@pytest.mark.parametrize("name", ["probe_ep", "probe_ep_dout2", "probe_linear"])
def test_training_step_equals_the_papers_probe(name):
    """Training logits, loss, gradients and running statistics of the published probes are reproduced."""
    golden = load_golden(name)
    tokens, state = golden.tensors["input"], golden.group("state")
    tokens = tokens[:, None] if tokens.ndim == 2 else tokens

    def head_of(tensors):
        return import_probe_head(golden.head, golden.constructor, tensors, num_tokens=tokens.shape[1])

    head = head_of(state).train()
    logits = head(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits, golden.tensors["labels"])
    loss.backward()
    assert_golden(logits, golden.tensors["logits_train"])
    assert_golden(loss, golden.tensors["loss_train"].reshape(()))
    gradients = dict(head_of({**state, **golden.group("grad")}).named_parameters())
    for key, parameter in head.named_parameters():
        assert_golden(parameter.grad, gradients[key])
    after = head_of({**state, **golden.group("state_after")}).state_dict()
    for key in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        assert_golden(head.state_dict()[key], after[key])


def test_token_norm():
    """`l2` scales each token to unit length before the pooling."""
    head = ProbeHead(HeadConfig("mean", token_norm="l2"), 8, SequenceLayout(4, (2, 2)), 3)
    patches = torch.randn(2, 4, 8)
    sequence = head.read({"last": Tokens(patches[:, :0], patches[:, :0], patches, (2, 2))})
    assert torch.allclose(sequence.norm(dim=-1), torch.ones(2, 4), atol=1e-6)


def test_no_parameter_name_collides_with_conversions():
    """Checkpoint conversions of some backbones rewrite these words; no tensor of a head may contain them."""
    for pooling in POOLINGS:
        options = {"num_attention_heads": 4} if "num_attention_heads" in pooling_options(pooling) else {}
        head = ProbeHead(HeadConfig(pooling, options), 32, SequenceLayout(4, (2, 2)), 3)
        for key in head.state_dict():
            assert not any(word in key for word in ("attention", "q_proj", "layer", "blocks")), key
