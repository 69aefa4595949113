"""A seed is everything that is random about a head: weights, order, views."""

import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.batches import shuffled
from attentive_probes.data.pixels.augment import Augmentation
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]


def weights(folder, backbone, seeds, train_seed=0, augmentation=None):
    """Seed of the head -> its classifier after two epochs."""
    runs = {str(seed): HeadRun(HeadConfig("ep", {"num_queries": 4}), seed=seed) for seed in seeds}
    sweep = ProbeSweep.from_backbone(backbone, runs, labels=LABELS)
    arguments = ProbeTrainingArguments(str(folder), num_train_epochs=2, batch_size=7, seed=train_seed)
    trainer = ProbeTrainer(sweep, arguments, image_dataset(24), image_dataset(12, seed=1), augmentation=augmentation)
    trainer.train()
    assert [head.seed for head in trainer.results.heads] == [train_seed if s is None else s for s in seeds]
    return {seed: sweep.heads[str(seed)].classifier.weight.clone() for seed in seeds}


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_a_seed_together_is_that_seed_alone(augmentation, tiny_backbone, tmp_path):
    """Heads of several seeds in one run end as each would in a run of its own with that seed."""
    backbone = tiny_backbone("vit")
    together = weights(tmp_path / "all", backbone, (0, 1, 2), augmentation=augmentation)
    for seed, found in together.items():
        alone = weights(tmp_path / str(seed), backbone, (seed,), seed, augmentation)[seed]
        torch.testing.assert_close(found, alone)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_order_is_a_part_of_the_seed(tiny_backbone, tmp_path):
    """Equal weights at the start, other batches: other results."""
    backbone = tiny_backbone("vit")
    first, second = (weights(tmp_path / str(seed), backbone, (None,), seed)[None] for seed in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)


def test_neighbouring_seeds_share_no_order():
    """Whatever the epoch; and as many images of a batch as chance has it."""
    orders = {(seed, epoch): tuple(shuffled(1000, seed, epoch)) for seed in range(5) for epoch in range(1, 6)}
    assert len(set(orders.values())) == len(orders)
    batches = [set(order[:100]) for order in orders.values()]
    shared = [len(a & b) for i, a in enumerate(batches) for b in batches[:i]]
    assert 8 < sum(shared) / len(shared) < 12 and max(shared) < 30


def test_several_seeds_of_a_stream_are_refused(tiny_backbone, tmp_path):
    """It is read in one order."""
    runs = {str(seed): HeadRun(HeadConfig("mean"), seed=seed) for seed in (0, 1)}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=LABELS)
    arguments = ProbeTrainingArguments(str(tmp_path), max_steps=3, batch_size=8)
    with pytest.raises(ValueError, match=r"seeds \[0, 1\]; use one seed"):
        ProbeTrainer(sweep, arguments, image_dataset(24).to_iterable_dataset(), image_dataset(12))
