import pytest
import torch

from attentive_probes.hub.published_heads import import_probe_head
from attentive_probes.poolings import POOLINGS, pooling_options
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head import ProbeHead, pool_heads
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


def test_training_noise():
    """Noise of the given size on the given share of images, after the norm; none in evaluation."""
    config = HeadConfig("mean", token_norm="l2", token_noise=0.05, token_noise_probability=0.5)
    head = ProbeHead(config, 64, SequenceLayout(4, (2, 2)), 3)
    tokens = torch.nn.functional.normalize(torch.randn(400, 4, 64), dim=-1)
    assert torch.equal(head.eval().perturb(tokens), tokens)
    noise = head.train().perturb(tokens) - tokens
    hit = noise.abs().amax((1, 2)) > 0
    assert 0.4 < hit.float().mean() < 0.6
    assert abs(noise[hit].std() - 0.05) < 0.001


def test_noise_is_each_heads_own():
    """In a sweep, a noisy head leaves what its neighbours read untouched, and the order of results stays."""
    configs = [HeadConfig("mean"), HeadConfig("mean", token_noise=1.0, token_noise_probability=1.0), HeadConfig("mean")]
    heads = [ProbeHead(config, 8, SequenceLayout(4, (2, 2)), 3).train() for config in configs]
    tokens = torch.randn(16, 4, 8)
    features = [output.features for output in pool_heads(heads, tokens)]
    assert torch.allclose(features[0], tokens.mean(1), atol=1e-6)
    assert torch.equal(features[0], features[2])
    assert (features[1] - features[0]).abs().min() > 0


@pytest.mark.parametrize("options", [{"token_noise": -1.0}, {"token_noise_probability": 1.5}])
def test_impossible_noise(options):
    """A value out of range is named."""
    with pytest.raises(ValueError, match=next(iter(options))):
        HeadConfig(**options)


def test_no_parameter_name_collides_with_conversions():
    """Checkpoint conversions of some backbones rewrite these words; no tensor of a head may contain them."""
    for pooling in POOLINGS:
        options = {"num_attention_heads": 4} if "num_attention_heads" in pooling_options(pooling) else {}
        head = ProbeHead(HeadConfig(pooling, options), 32, SequenceLayout(4, (2, 2)), 3)
        for key in head.state_dict():
            assert not any(word in key for word in ("attention", "q_proj", "layer", "blocks")), key
