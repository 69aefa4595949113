"""A step is that of its whole batch, whatever the number of processes, parts and images."""

from itertools import product

import pytest
import torch
import torch.distributed as dist

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.poolings import OURS
from attentive_probes.probe.head import ProbeHead
from attentive_probes.tokens import SequenceLayout
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.notes import head_rates
from attentive_probes.training.steps.loop import TrainingLoop
from attentive_probes.training.steps.losses import summed_losses
from attentive_probes.training.steps.split_use import split_loader
from attentive_probes.training.steps.step_count import balanced_class_weights
from spawned import on_processes
from tiny import image_split

NORMED = {
    "linear": HeadConfig("mean"),
    "ep": HeadConfig("ep", {"num_queries": 4}),
    "aim": HeadConfig("aim", {"num_attention_heads": 4}),
    "cae": HeadConfig("cae", {"num_attention_heads": 4}, tokens=("cls", "patches")),
}
PLAIN = {
    name: HeadConfig(NORMED[name].pooling, NORMED[name].options, feature_norm="layernorm") for name in ("ep", "cae")
}
# Images, batch size, parts, drop_last, class weights.
CASES = [
    (5, 8, 1, True, "none"),  # fewer images than a batch
    (21, 8, 1, False, "none"),
    (21, 8, 1, True, "balanced"),
    (19, 8, 1, False, "balanced"),
    (9, 4, 1, True, "none"),
    (7, 7, 1, False, "balanced"),
    (10, 8, 1, False, "none"),  # a last batch that leaves a process without an image
    *product((17, 21), (8,), (2, 3), (True, False), ("none", "balanced")),
]


def trained(
    backbone: str,
    images: int,
    batch_size: int,
    parts: int,
    drop_last: bool,
    weights: str,
    configs=None,
    epochs: int = 2,
):
    """Tensors, scores and training losses of all heads after two epochs of plain gradient descent."""
    heads = {name: HeadRun(config) for name, config in (configs or heads_of(parts)).items()}
    sweep = ProbeSweep.from_backbone(backbone, heads, labels=["band 0", "band 1", "band 2"])
    arguments = ProbeTrainingArguments(
        "unused", 2, batch_size=batch_size, gradient_accumulation_steps=parts, drop_last=drop_last, optimizer="sgd",
        learning_rate=0.1, eval_batch_size=5,
    )  # fmt: skip
    train, validation = image_split(sweep.config, images), image_split(sweep.config, 7, seed=1)
    class_weights = balanced_class_weights(train.targets(), 3) if weights == "balanced" else None
    accelerator = make_accelerator()
    steps, held_out = (
        split_loader(split, sweep.image_processor, sweep.backbone, None, arguments, accelerator, train=is_train)
        for split, is_train in ((train, True), (validation, False))
    )
    rates = head_rates(sweep, arguments)
    loop = TrainingLoop(sweep, arguments, rates, accelerator, [(list(heads), steps)], held_out, class_weights)
    loop.bar.disable = True
    losses = [loop.run_epoch(epoch + 1, lambda: None) for epoch in range(epochs)]
    scores = loop.evaluate()
    tensors = {f"{name}/loss": torch.tensor(found.loss) for name, found in scores.items()}
    tensors |= {f"{name}/correct": torch.from_numpy(found.correct.copy()).float() for name, found in scores.items()}
    tensors |= {
        f"{name}/{key}": t.clone() for name, head in sweep.heads.items() for key, t in head.state_dict().items()
    }
    return tensors | {f"{name}/{i}": torch.tensor(loss) for i, by in enumerate(losses) for name, loss in by.items()}


def heads_of(parts: int) -> dict[str, HeadConfig]:
    """Batch statistics are those of each part, so that heads in several parts have none."""
    return NORMED if parts == 1 else PLAIN


def all_cases(backbone: str, cases: list[tuple]) -> list[dict[str, torch.Tensor]]:
    return [trained(backbone, *case) for case in cases]


@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_step_is_that_of_its_whole_batch(processes, tiny_backbone):
    """Weights, statistics, training losses and scores are those of one process and one part, to rounding."""
    backbone = str(tiny_backbone("vit"))
    cases = [case for case in CASES if processes > 1 or case[2] > 1]  # one process and one part are the expectation
    expected = [trained(backbone, n, size, 1, *rest, heads_of(parts)) for n, size, parts, *rest in cases]
    for found in on_processes(processes, all_cases, backbone, cases):
        for case, one, many in zip(cases, expected, found, strict=True):
            for key, tensor in one.items():
                gap = (many[key] - tensor).abs().max() / tensor.abs().max().clamp(min=1)
                assert gap <= (1e-4 if case[0] == 10 else 3e-6), (case, key)  # two images make shaky statistics


@pytest.mark.parametrize("pooling", sorted(OURS))
def test_every_pooling_takes_no_image(pooling):
    """A process without an image of a step runs forward and backward all the same; its gradients are zero."""
    options = {"num_queries": 4} if pooling == "ep" else {}
    head = ProbeHead(HeadConfig(pooling, options, feature_norm="layernorm"), 48, SequenceLayout(12, (3, 4)), 3)
    if pooling in ("aim", "cbam", "dolg"):
        head.eval()  # batch statistics of nothing exist in company alone
    logits = head(torch.empty(0, 12, 48)).logits
    assert logits.shape == (0, 3)
    summed_losses([logits], torch.empty(0, dtype=torch.long), "single_label_classification").sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def collectives(backbone: str, count: int) -> dict[str, int]:
    """How often processes exchange something in an epoch of three steps of so many heads of each kind."""
    counted = {"all_reduce": 0, "all_gather": 0}
    originals = {name: getattr(dist, name) for name in counted}

    def counting(name):
        def call(*arguments, **options):
            counted[name] += 1
            return originals[name](*arguments, **options)

        return call

    for name in counted:
        setattr(dist, name, counting(name))
    configs = {f"{name}-{i}": config for name, config in NORMED.items() for i in range(count)}
    trained(backbone, 24, 8, 1, True, "balanced", configs, epochs=0)
    before = dict(counted)
    trained(backbone, 24, 8, 1, True, "balanced", configs, epochs=1)
    for name, original in originals.items():
        setattr(dist, name, original)
    return {name: counted[name] - 2 * before[name] for name in counted}


@pytest.mark.slow
def test_exchanges_do_not_grow_with_heads(tiny_backbone):
    """Per step: the weight of the batch, moments of tokens and of features, their gradient, all gradients."""
    backbone = str(tiny_backbone("vit"))
    one, many = (on_processes(2, collectives, backbone, count)[0] for count in (1, 4))
    assert one == many
    assert one["all_reduce"] == 3 * 3 and one["all_gather"] == 3 * 2
