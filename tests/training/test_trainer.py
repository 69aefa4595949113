import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Image

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.problems import PROBLEMS
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.state.checkpoint import load_states
from attentive_probes.training.trainer import ProbeTrainer
from tiny import image_dataset

NAMES = ["band 0", "band 1", "band 2"]
RUNS = {
    "ep": HeadRun(HeadConfig("ep", {"num_queries": 4}), learning_rate=0.02),
    "gap": HeadRun(HeadConfig("mean"), learning_rate=0.05, weight_decay=0.1),
    "cls-lr0.01": HeadRun(HeadConfig("mean", tokens=("cls",))),
}


@pytest.fixture
def backbone(tiny_backbone):
    return tiny_backbone("vit")


def make_sweep(backbone, runs=RUNS, **options) -> ProbeSweep:
    return ProbeSweep.from_backbone(backbone, runs, labels=NAMES, **options)


def make_trainer(model, folder, train=None, validation=None, augmentation=None, images=None, **options) -> ProbeTrainer:
    options = {"num_train_epochs": 3, "batch_size": 8, "eval_batch_size": 5, "learning_rate": 0.01, **options}
    return ProbeTrainer(
        model,
        ProbeTrainingArguments(str(folder), **options),
        train or image_dataset(48),
        validation or image_dataset(12, seed=1),
        augmentation=augmentation,
        images=images,
    )


def with_broken_image() -> Dataset:
    """17 images of which one is cut off."""
    data = image_dataset(17)
    cells = data.cast_column("image", Image(decode=False))["image"][:]
    cells[3]["bytes"] = cells[3]["bytes"][:60]
    return Dataset.from_dict({"image": cells, "label": data["label"][:]}, features=data.features)


def head_tensors(sweep: ProbeSweep) -> dict[str, torch.Tensor]:
    return {f"{n}/{k}": v.clone() for n, head in sweep.heads.items() for k, v in head.state_dict().items()}


def test_training_learns_and_writes_everything(backbone, tmp_path):
    """Heads learn, each is kept at its best validation epoch, and the files agree with what is in memory."""
    sweep = make_sweep(backbone)
    trainer = make_trainer(sweep, tmp_path, num_train_epochs=6)
    results = trainer.train()
    for head in results.heads:
        values = [epoch["top1"] for epoch in head.history]
        assert len(values) == 6
        assert head.validation["top1"] == max(values)
        assert head.best_epoch == values.index(max(values)) + 1
    assert results.head("ep").validation["top1"] > 60
    assert results.head("ep").history[-1]["train_loss"] < results.head("ep").history[0]["train_loss"]
    assert results.head("ep").trainable_parameters == 4 * 32 + 32 * 32 + 32 * 3 + 3
    test = image_dataset(30, seed=2)
    results = trainer.test(test, baseline="gap")
    assert SweepResults.load(tmp_path / "results.json") == results
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["best"] == results.best.name
    assert written["data"]["test"] == {"images": 30, "unreadable": 0}
    for name, run in RUNS.items():
        probe = ProbeForImageClassification.from_pretrained(tmp_path / "probes" / name)
        metrics = evaluate_probe(probe, test, batch_size=7)
        assert metrics["top1"] == results.head(name).test["top1"]
        assert probe.config.head_config == run.head
        for key, tensor in load_states(tmp_path / "checkpoints" / "best.safetensors")[name].items():
            assert torch.equal(tensor, probe.head.state_dict()[key])


def test_together_is_alone(backbone, tmp_path):
    """A head trained beside others ends with the weights it has when trained by itself."""
    together = make_sweep(backbone)
    make_trainer(together, tmp_path / "all", max_grad_norm=0.1).train()
    for name, run in RUNS.items():
        alone = make_sweep(backbone, {name: run})
        make_trainer(alone, tmp_path / name, max_grad_norm=0.1).train()
        for key, tensor in alone.heads[name].state_dict().items():
            assert torch.allclose(tensor, together.heads[name].state_dict()[key], atol=1e-5), (name, key)


def test_a_probe_is_a_sweep_of_one(backbone, tmp_path):
    """The trainer takes a probe and trains it in place; its backbone stays bit-equal."""
    probe = ProbeForImageClassification.from_backbone(backbone, HeadConfig("ep", {"num_queries": 4}), labels=NAMES)
    before = {key: tensor.clone() for key, tensor in probe.state_dict().items()}
    results = make_trainer(probe, tmp_path).train()
    for key, tensor in probe.state_dict().items():
        assert torch.equal(tensor, before[key]) == key.startswith("backbone."), key
    saved = ProbeForImageClassification.from_pretrained(tmp_path / "probes" / results.best.name)
    assert torch.equal(saved.head.classifier.weight, probe.head.classifier.weight)


def test_same_seed_same_result(backbone, tmp_path):
    """With augmentation and worker processes, too; another seed differs."""
    tensors = []
    for run, options in enumerate(({"seed": 1}, {"seed": 1, "num_workers": 2}, {"seed": 2})):
        sweep = make_sweep(backbone)
        make_trainer(sweep, tmp_path / str(run), augmentation=Augmentation(), num_train_epochs=2, **options).train()
        tensors.append(head_tensors(sweep))
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    assert not all(torch.equal(tensors[0][key], tensors[2][key]) for key in tensors[0])


def test_gradient_accumulation(backbone, tmp_path):
    """Without batch statistics, a batch in four parts is the batch at once."""
    runs = {"ep": HeadRun(HeadConfig("ep", {"num_queries": 4}, feature_norm="none"))}
    weights = []
    for steps in (1, 4):
        sweep = make_sweep(backbone, runs)
        make_trainer(sweep, tmp_path / str(steps), gradient_accumulation_steps=steps, num_train_epochs=1).train()
        weights.append(head_tensors(sweep))
    for key, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][key], atol=1e-5), key


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rates_and_clipping_are_per_head(optimizer, backbone, tmp_path):
    """A head with rate zero stays where it is while its neighbour learns."""
    runs = {"still": HeadRun(HeadConfig("mean"), learning_rate=0.0), "moving": HeadRun(HeadConfig("mean"))}
    sweep = make_sweep(backbone, runs)
    before = head_tensors(sweep)
    make_trainer(sweep, tmp_path, optimizer=optimizer, max_grad_norm=1.0, num_train_epochs=1).train()
    after = head_tensors(sweep)
    assert torch.equal(before["still/classifier.weight"], after["still/classifier.weight"])
    assert not torch.equal(before["moving/classifier.weight"], after["moving/classifier.weight"])


def test_mixed_precision(backbone, tmp_path):
    """bfloat16 autocast trains to about the same place; the heads stay float32."""
    losses = []
    for precision in ("no", "bf16"):
        sweep = make_sweep(backbone, {"ep": RUNS["ep"]})
        results = make_trainer(sweep, tmp_path / precision, mixed_precision=precision).train()
        losses.append(results.best.history[-1]["train_loss"])
        assert all(p.dtype == torch.float32 for p in sweep.heads["ep"].parameters())
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] != losses[1]


def test_streams(backbone, tmp_path):
    """A stream trains for the given number of steps, over several passes, and is evaluated whole."""
    stream = image_dataset(20).to_iterable_dataset()
    sweep = make_sweep(backbone)
    results = make_trainer(sweep, tmp_path, stream, image_dataset(11).to_iterable_dataset(), max_steps=5).train()
    assert len(results.heads[0].history) == 3
    assert sweep.heads["ep"].norm.num_batches_tracked <= 5
    with pytest.raises(ValueError, match="set max_steps"):
        make_trainer(make_sweep(backbone), tmp_path / "other", stream)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_other_problems(problem_type, backbone, tmp_path):
    """Multi-label and regression train, and select on the validation loss."""
    data = image_dataset(24).remove_columns("label").add_column("label", np.eye(3)[np.arange(24) % 3].tolist())
    sweep = make_sweep(backbone, problem_type=problem_type)
    trainer = make_trainer(sweep, tmp_path, data, data)
    results = trainer.train()
    assert results.selection_metric == "loss"
    for head in results.heads:
        assert head.validation["loss"] == min(epoch["loss"] for epoch in head.history)
    assert {"loss", *PROBLEMS[problem_type].metrics} <= set(trainer.test(data).best.test)


def test_the_output_folder_is_never_overwritten_silently(backbone, tmp_path):
    """A second run in the same folder is refused before any work, unless asked; foreign files are left alone."""
    (tmp_path / "notes.txt").write_text("mine")
    make_trainer(make_sweep(backbone), tmp_path, num_train_epochs=1).train()
    with pytest.raises(ValueError, match="already holds a run .*overwrite=true"):
        make_trainer(make_sweep(backbone), tmp_path)
    make_trainer(make_sweep(backbone, {"gap": RUNS["gap"]}), tmp_path, overwrite=True, num_train_epochs=1).train()
    assert [path.name for path in (tmp_path / "probes").iterdir()] == ["gap"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_test_split_is_scored_once(backbone, tmp_path):
    """A second look at the test split and an unknown baseline are refused."""
    trainer = make_trainer(make_sweep(backbone), tmp_path, num_train_epochs=1)
    trainer.train()
    with pytest.raises(ValueError, match="Unknown head, as baseline: 'gpa'. Did you mean 'gap'"):
        trainer.test(image_dataset(6), baseline="gpa")
    trainer.test(image_dataset(6))
    with pytest.raises(ValueError, match="scored before"):
        trainer.test(image_dataset(6))


def test_skipped_images_are_reported(backbone, tmp_path):
    """The number of unreadable images stands in the results."""
    broken = with_broken_image()
    trainer = make_trainer(make_sweep(backbone), tmp_path, broken, images=ImageOptions(unreadable="skip"))
    assert trainer.results.data["train"] == {"images": 16, "unreadable": 1}


@pytest.mark.parametrize(("num_workers", "count"), [(0, 1), (1, None)])
def test_skipped_images_of_a_stream_are_counted_once(num_workers, count, backbone, tmp_path, caplog):
    """However many passes, in the results; worker processes cannot count, and the results say so."""
    options = {"max_steps": 5, "num_workers": num_workers}
    images = ImageOptions(unreadable="skip")
    trainer = make_trainer(
        make_sweep(backbone), tmp_path, with_broken_image().to_iterable_dataset(), images=images, **options
    )
    assert trainer.train().data["train"] == {"images": None, "unreadable": count}
    assert caplog.text.count("Skipped: ") == (count or 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"warmup_ratio": 2.0}, "warmup_ratio"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"batch_size": 2, "gradient_accumulation_steps": 2}, "batch_size=2 in 2 accumulation steps"),
        ({"batch_size": 47, "drop_last": False}, "last batch of 48 training images.*is a single image"),
        ({"selection_metric": "top2"}, "selection_metric"),
    ],
)
def test_wrong_arguments_are_refused_before_training(options, message, backbone, tmp_path):
    """Every argument out of range is named, and nothing is written."""
    with pytest.raises(ValueError, match=message):
        make_trainer(make_sweep(backbone), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
