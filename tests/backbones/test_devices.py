"""Backbones that are spread over devices, and what a step must not do on one: wait for it, or make tensors again."""

from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.backbones import PixelNormalization
from attentive_probes.training.steps.gradients import HeadGradients
from attentive_probes.training.steps.losses import summed_losses
from tiny import image_dataset

LABELS = ["band 0", "band 1", "band 2"]
HEADS = {
    "mean": HeadConfig("mean"),
    "cls": HeadConfig("mean", tokens=("cls",), feature_norm="layernorm"),
    "ep": HeadConfig("ep", {"num_queries": 4}),
    "ep2": HeadConfig("ep", {"num_queries": 4}),
    "aim": HeadConfig("aim", {"num_attention_heads": 4}),
    "alf": HeadConfig("alf", {"num_attention_heads": 4}, tokens=("cls@all", "mean@all")),
    "abmilp": HeadConfig("abmilp"),
}
SPREAD = {"embeddings": "cpu", "layers.0": "cpu", "layers.1": "disk", "layers.2": "cpu", "layernorm": "cpu"}


def test_a_spread_backbone_trains_and_predicts(tiny_backbone):
    """Part of it lies on the disk: heads learn, nothing moves it, and its probe says the same as one in memory."""
    name, data = tiny_backbone("vit"), image_dataset(8)
    probe = ProbeForImageClassification.from_backbone(name, HEADS["ep"], labels=LABELS, device_map=SPREAD)
    assert probe.backbone.is_spread and probe.head.classifier.weight.device == torch.device("cpu")
    whole = ProbeForImageClassification.from_backbone(name, HEADS["ep"], labels=LABELS)
    whole.head.load_state_dict(probe.head.state_dict())
    pixels = whole.image_processor(list(data["image"]), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(probe.eval().to("cpu")(pixels).logits, whole.eval()(pixels).logits)
    sweep = ProbeSweep.from_probe(probe).train()
    sweep.to("cpu")
    summed_losses(
        [sweep(pixels)["ep"].logits], torch.tensor([0, 1] * 4), "single_label_classification"
    ).sum().backward()
    assert probe.head.pooling.query.grad.abs().sum() > 0


class Waits(TorchDispatchMode):
    """Notes what a device would have to be waited for: reading a number, and tensors made from Python's numbers."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "lift_fresh", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in func.name() for name in self.NAMES):
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_nothing(tiny_backbone):
    """Forward, losses, backward, clipping and verdicts of every kind of head read no number and make no tensor again.

    On the device `meta`, where everything goes the way of a GPU; norms have made their buffers in a step before.
    """
    sweep = ProbeSweep.from_backbone(
        tiny_backbone("vit"), {name: HeadRun(head) for name, head in HEADS.items()}, labels=LABELS
    ).train()
    sweep.backbone.normalization = PixelNormalization.of(sweep.image_processor)
    sweep.to("meta")
    gradients = HeadGradients({name: list(head.parameters()) for name, head in sweep.heads.items()})
    pixels = torch.empty(8, 3, *sweep.backbone.geometry.image_size, dtype=torch.uint8, device="meta")
    labels = torch.empty(8, dtype=torch.long, device="meta")

    def step() -> None:
        gradients.zero()
        outputs = sweep(pixels)
        losses = summed_losses([outputs[name].logits for name in HEADS], labels, "single_label_classification") / 8
        losses.sum().backward()
        gradients.add_losses(list(HEADS), losses.detach())
        gradients.settle(1, 1.0)

    step()
    with Waits() as waits:
        step()
    assert waits.found == []


def test_buffers_are_made_once():
    """The numbers of a normalization lie on the device after the first batch."""
    normalization, pixels = PixelNormalization((0.5, 0.25, 1.0), (0.0, 1.0, 2.0)), torch.zeros(2, 3, 4, 4).byte()
    normalization(pixels)
    with Waits() as waits:
        assert normalization(pixels)[0, :, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert not any("lift_fresh" in name for name in waits.found)


def test_compiled_blocks_keep_their_taps(tiny_backbone):
    """Compiled blocks give the tokens of every tap, in them and between them; a few versions serve all calls."""
    torch._dynamo.reset()
    heads = {"ep": HEADS["ep"], "alf": HEADS["alf"], "block": HeadConfig("mean", tokens=("patches@block:0",))}
    sweep = ProbeSweep.from_backbone(
        tiny_backbone("vit"), {name: HeadRun(head) for name, head in heads.items()}, labels=LABELS
    ).eval()
    pixels = torch.rand(4, 3, *sweep.backbone.geometry.image_size)
    expected = sweep.read(pixels)
    for module in sweep.backbone.model.modules():
        module.compile = partial(torch.nn.Module.compile, module, backend="aot_eager")
    sweep.backbone.compile_blocks()
    compiled = torch._dynamo.utils.counters["frames"]
    counts = []
    for _ in range(3):
        for tap, tokens in sweep.read(pixels).items():
            torch.testing.assert_close(tokens.cls, expected[tap].cls)
            torch.testing.assert_close(tokens.patches, expected[tap].patches)
        counts.append(compiled["ok"])
    assert 0 < counts[0] == counts[1] == counts[2]
