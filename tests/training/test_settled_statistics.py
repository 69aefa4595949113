"""Batch statistics after few steps: what they started from is taken out."""

import pytest
import torch
from test_trainer import RUNS, make_sweep, make_trainer

from attentive_probes.layers.normalization import BatchNorm


@pytest.mark.parametrize("steps", [1, 5, 200])
def test_settled_statistics_have_no_bias(steps):
    """Weighted averages over the batches seen, with weights that sum to one; nothing before the first."""
    torch.manual_seed(0)
    norm = BatchNorm(3).train()
    batches = [torch.randn(64, 3) * 0.1 + 5 for _ in range(steps)]
    for batch in batches:
        norm(batch)
    weights = 0.9 ** torch.arange(steps - 1, -1, -1.0)
    mean, variance = (
        (weights[:, None] * torch.stack(parts)).sum(0) / weights.sum()
        for parts in ([b.mean(0) for b in batches], [b.var(0) for b in batches])
    )
    norm.settle()
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-6)
    fresh = BatchNorm(3)
    fresh.settle()
    assert fresh.running_mean.eq(0).all() and fresh.running_var.eq(1).all()


def test_heads_are_scored_and_kept_with_them(tiny_backbone, tmp_path):
    """After one epoch of three steps a saved head has settled statistics; training went on with PyTorch's."""
    backbone = tiny_backbone("vit")
    sweep = make_sweep(backbone, {"gap": RUNS["gap"]})
    trainer = make_trainer(sweep, tmp_path, num_train_epochs=1, max_steps=3)
    trainer.train()
    features = trained_features(sweep, trainer)
    kept, true = sweep.heads["gap"].norm.running_var, features.var(0)
    assert (kept / true).log().abs().max() < 0.7  # with the bias of 0.9 ** 3 the ratio is beyond 10
    state = torch.load(tmp_path / "checkpoints" / "state.pt")["heads"]["gap"]
    assert not torch.allclose(state["norm.running_var"], kept)


def trained_features(sweep, trainer):
    with torch.no_grad():
        batches = [batch for (batch,) in trainer.run.loader(trainer.run.train_split, train=False)]
        outputs = [sweep.heads["gap"].pooling(sweep.read(b["pixel_values"])["last"].patches).features for b in batches]
    return torch.cat(outputs)
