"""Steps, costs and seeds have one home: what is planned is what is trained, what is stated is what runs."""

import ast
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import attentive_probes
from attentive_probes import HeadConfig, HeadRun, OnlineProbes, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.experiments.options import expected_seconds
from attentive_probes.experiments.plan import _steps, plan_recipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.shipped import find_recipe
from attentive_probes.poolings import POOLINGS, build_pooling
from attentive_probes.tokens import SequenceLayout, Tokens
from attentive_probes.training.profile import Profile
from attentive_probes.training.steps.step_count import steps_of
from tiny import image_dataset

SOURCE = Path(attentive_probes.__file__).parent
SETTINGS = [
    {"batch_size": 32, "num_train_epochs": 2, "fit_batch_size": True},
    {"batch_size": 0, "num_train_epochs": 0},
    {"batch_size": 16, "num_train_epochs": 2, "min_steps": 23},
    {"batch_size": 16, "num_train_epochs": 2, "drop_last": False},
    {"batch_size": 500, "num_train_epochs": 3},
    {"batch_size": 16, "max_steps": 7},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_plan_counts_as_the_trainer_does(settings, tiny_backbone, tmp_path):
    """However batch and epochs are stated: steps of plan, of the arithmetic, and of the loop are one number."""
    arguments = ProbeTrainingArguments(str(tmp_path / "run"), **settings)
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), {"linear": HeadRun(HeadConfig("mean"))}, num_labels=3)
    trainer = ProbeTrainer(sweep, arguments, image_dataset(77), image_dataset(12, seed=1))
    loop = trainer._loop()
    assert loop.total_steps == steps_of(arguments, 77).total == _steps(arguments, 77)
    loop.close()


def test_steps_that_were_planned_wrong():
    """Evenly filled epochs of 1,000 images have 5 batches, of 50,000 have 24; a least number is of whole epochs."""
    found = [
        steps_of(ProbeTrainingArguments("x", batch_size=b, num_train_epochs=e, **more), n).total
        for n, b, e, more in [
            (1000, 256, 10, {"fit_batch_size": True}),
            (50_000, 2048, 100, {"fit_batch_size": True}),
            (1000, 32, 10, {"min_steps": 1000}),
            (1000, 256, 10, {"drop_last": False}),
        ]
    ]
    assert found == [50, 2400, 1023, 40]


def test_a_plan_knows_which_images_are_used():
    """ImageNet's recipes: a hundredth is held out of training, and the validation split is the test."""
    plan = plan_recipe(Recipe.load(find_recipe("ep/mae-base_imagenet")))
    assert plan.images["test"] == 50_000 and plan.images["validation"] == round(0.01 * 1_281_167)


def test_an_estimate_counts_by_the_same_steps():
    """Twice the epochs, twice the time of the heads; folds train on what each leaves."""
    text = """
backbone: {name: "embedded:mae-tiny-fashion"}
data: {dataset: "embedded:fashion-mnist", test_fraction: 0.2, validation_fraction: 0.1, test_split: null}
heads: {linear: {pooling: mean}}
train: {output_dir: x, batch_size: 10, num_train_epochs: %d}
"""
    profile = Profile(1e9, 1e9, 1e9, 100.0, 1000, 1, 0)
    once, twice = (expected_seconds(Recipe.of_text(text % n), profile, 1000, 1) for n in (1, 2))
    assert twice == pytest.approx(2 * once, rel=1e-3) and once == pytest.approx(720 / 100, rel=0.01)
    folds = Recipe.of_text(text % 1 + "selection: {folds: 4}\n")
    assert expected_seconds(folds, profile, 1000, 1) == pytest.approx((4 * 600 + 0.3 * 720) / 100, rel=0.01)


def test_nobody_else_counts_steps():
    """The rules of batch size, epochs and least steps are called in their home alone."""
    rules = {"fitting_batch_size", "usual_batch_size", "usual_epochs", "epochs_for"}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name != "step_count.py":
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & rules, path


OPTIONS = {"cait": {"num_blocks": 2}, "abmilp": {"self_attention": "both", "depth": 2}, "jepa": {"num_self_blocks": 1}}
CASES = [(name, {}) for name in POOLINGS] + list(OPTIONS.items())


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{o}" if o else n for n, o in CASES])
def test_multiply_adds_are_those_that_run(name, options):
    """What a pooling states per image is what a counter sees of two images less one, every pooling."""
    layout, width = SequenceLayout(49, (7, 7)), 192
    pooling = build_pooling(name, width, layout, options).eval()
    counts = []
    for batch in (1, 2):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            pooling(torch.randn(batch, 49, width))
        counts.append(counter.get_total_flops() / 2)
    stated, runs = pooling.multiply_adds().folded, counts[1] - counts[0]
    hidden = _attention_of_blocks(name, pooling, options)  # the counter does not see it on every processor
    assert stated == pytest.approx(runs, rel=0.03, abs=3 * 49 * width) or stated == pytest.approx(
        runs + hidden, rel=0.03, abs=3 * 49 * width
    )


def _attention_of_blocks(name, pooling, options):
    """Multiply-adds of the fused attention of blocks over all tokens."""
    if name == "combo":
        return 2 * 50 * 50 * 128  # of all blocks but the last, whose attention is read
    return 2 * 49 * 49 * 192 if "num_self_blocks" in options else 0


def initial(seed, run_seed=None, tmp="x"):
    runs = {"ep": HeadRun(HeadConfig("ep", {"num_queries": 4}), learning_rate=0.0, seed=run_seed)}
    sweep = ProbeSweep.from_backbone(initial.backbone, runs, num_labels=3)
    arguments = ProbeTrainingArguments(str(tmp), num_train_epochs=1, batch_size=16, seed=seed, select_epoch=False)
    trainer = ProbeTrainer(sweep, arguments, image_dataset(32), image_dataset(12, seed=1))
    trainer.train()
    return sweep.heads["ep"].pooling.query.detach().clone(), trainer.results.heads[0].seed


def test_the_seed_of_a_training_reaches_the_weights(tiny_backbone, tmp_path):
    """From Python as from a recipe: other seeds, other initial weights; a seed of the head's own stays."""
    initial.backbone = tiny_backbone("vit")
    zero, one, own, told = (
        initial(seed, run_seed, tmp_path / str(i))
        for i, (seed, run_seed) in enumerate([(0, None), (1, None), (5, 1), (1, 1)])
    )
    assert not torch.equal(zero[0], one[0]) and torch.equal(one[0], own[0]) and torch.equal(own[0], told[0])
    assert [pair[1] for pair in (zero, one, own)] == [0, 1, 1]


def test_weights_that_somebody_wrote_stay(tiny_backbone, tmp_path):
    """A seed does not draw again what was written to a head since it was built."""
    runs = {"ep": HeadRun(HeadConfig("ep", {"num_queries": 4}))}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, num_labels=3)
    with torch.no_grad():
        sweep.heads["ep"].pooling.query.fill_(0.5)
    sweep.seed_weights(7)
    assert (sweep.heads["ep"].pooling.query == 0.5).all()


NOISY = {
    "noise": HeadConfig("ep", {"num_queries": 4}, token_norm="l2", token_noise=0.05),
    "dropout": HeadConfig("mean", dropout=0.3),
    "attention dropout": HeadConfig("alf", {"num_attention_heads": 4, "attention_dropout": 0.3}, tokens=("patches",)),
    "nested": HeadConfig("ep", {"num_queries": 4, "elastic": 2}),
}


@pytest.mark.parametrize("kind", NOISY)
def test_a_head_alone_equals_a_head_in_company(kind, tiny_backbone, tmp_path):
    """Also one that draws at random: after another such head, before one, or alone, its losses are the same."""
    orders = [["it"], ["other", "it"], ["it", "other"]]
    heads = {"it": NOISY[kind], "other": HeadConfig("ep", {"num_queries": 2}, token_norm="l2", token_noise=0.1)}
    found = []
    for i, order in enumerate(orders):
        runs = {name: HeadRun(heads[name], learning_rate=0.01) for name in order}
        sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, num_labels=3)
        arguments = ProbeTrainingArguments(str(tmp_path / str(i)), num_train_epochs=2, batch_size=16)
        trainer = ProbeTrainer(sweep, arguments, image_dataset(48), image_dataset(12, seed=1))
        trainer.train()
        found.append([row["train_loss"] for row in trainer.results.head("it").history])
    assert found[1] == pytest.approx(found[0], rel=1e-6) and found[2] == pytest.approx(found[0], rel=1e-6)


def test_online_heads_do_not_depend_on_their_neighbours():
    """Nor do heads beside a backbone in training."""
    tokens = Tokens(torch.zeros(8, 0, 16), torch.zeros(8, 0, 16), torch.randn(8, 9, 16), (3, 3))
    labels = torch.arange(8) % 2
    it = HeadConfig("mean", dropout=0.5)
    alone, company = OnlineProbes({"it": it}, 2), OnlineProbes({"other": HeadConfig("mean", dropout=0.2), "it": it}, 2)
    for _ in range(3):
        losses = [probes.update(tokens, labels)["it"] for probes in (alone, company)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)


def test_normed_blocks_as_dinov2_reads_them(tiny_backbone):
    """`normed:i` is the model's last norm of the output of block i; of the last block it is `final`."""
    sweep = ProbeSweep.from_backbone(
        tiny_backbone("dinov2"),
        {"head": HeadRun(HeadConfig("concat", tokens=("cls@block:-2", "cls@normed:-2", "cls@normed:-1", "cls@final")))},
        num_labels=3,
    )
    with torch.no_grad():
        tokens = sweep.read(torch.randn(2, 3, 16, 16))
        norm = sweep.backbone.model.layernorm
        block, normed, last, final = (tokens[tap].cls for tap in sweep.readings[0].taps)
    assert torch.allclose(norm(block), normed, atol=1e-5) and torch.allclose(last, final, atol=1e-5)


def test_classifiers_start_as_configured():
    """N(0, 0.01) with biases of zero, where a recipe asks for it."""
    probes = OnlineProbes({"linear": HeadConfig("mean", classifier_init_std=0.01)}, 50)
    probes(Tokens(torch.zeros(2, 0, 400), torch.zeros(2, 0, 400), torch.randn(2, 9, 400), (3, 3)))
    classifier = probes.heads["linear"].classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05) and not classifier.bias.any()
