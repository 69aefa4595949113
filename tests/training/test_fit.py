"""What is held out of a fit is not learned from; rates and sizes that are left to us."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainingArguments
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.splitting.folds import folds_of
from attentive_probes.data.token_cache import CacheOptions
from attentive_probes.evaluation.references import Reference
from attentive_probes.poolings import POOLINGS
from attentive_probes.probe.making.rates import rate_of
from attentive_probes.tokens import Reading
from attentive_probes.training.cross_validation import cross_validate
from attentive_probes.training.fit import fit_heads, fresh
from attentive_probes.training.state.notes import head_rates
from attentive_probes.training.steps.step_count import fit_to_images, usual_batch_size, usual_epochs
from spawned import on_processes
from tiny import image_split

READING = Reading.parse(("mean",))
RUNS = {
    "ep": HeadRun(HeadConfig("ep", {"num_queries": 4}), learning_rate=0.01),
    "noisy": HeadRun(HeadConfig("mean", token_noise=0.1), learning_rate=0.01, seed=3),
}


@pytest.fixture
def cached(tiny_backbone, tmp_path):
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), RUNS, num_labels=3)
    split = image_split(sweep.config, 40)
    options = CacheOptions(str(tmp_path / "tokens"), keep="memory")
    return sweep, build_token_cache(sweep.backbone, split, sweep.readings, sweep.image_processor, options)


def test_held_images_are_not_learned_from(cached, tmp_path):
    """Other labels and other tokens of held images leave every head bit for bit the same, and the batch statistics."""
    sweep, cache = cached
    held = np.arange(0, 40, 4)
    places = np.setdiff1d(np.arange(40), held)
    arguments = ProbeTrainingArguments(str(tmp_path / "run"), num_train_epochs=3, batch_size=8)
    first = fit_heads(fresh(sweep), arguments, cache, places, held, Accelerator())
    cache.labels[held] = (cache.labels[held] + 1) % 3
    for parts in cache._kept.values():
        for part in parts.values():
            part[held] = 7
    second = fit_heads(fresh(sweep), arguments, cache, places, held, Accelerator())
    for name in RUNS:
        assert all(torch.equal(tensor, second.states[name][key]) for key, tensor in first.states[name].items())
    assert first.scores["ep"].num_images == 10
    assert (first.scores["ep"].correct != second.scores["ep"].correct).any()


def test_a_head_that_diverges_is_left_out(cached, tmp_path):
    """The other one is as it would be alone."""
    sweep, cache = cached
    wild = {"wild": HeadRun(HeadConfig("mean", feature_norm="none"), learning_rate=1e38), "ep": RUNS["ep"]}
    arguments = ProbeTrainingArguments(str(tmp_path / "run"), num_train_epochs=4, batch_size=8, optimizer="sgd")
    both = fit_heads(fresh(sweep, wild), arguments, cache, np.arange(40), None, Accelerator())
    alone = fit_heads(fresh(sweep, {"ep": RUNS["ep"]}), arguments, cache, np.arange(40), None, Accelerator())
    assert set(both.states) == {"ep"} and both.scores == {}
    assert all(torch.equal(tensor, both.states["ep"][key]) for key, tensor in alone.states["ep"].items())


def test_rates_by_name(tmp_path):
    """`auto` is the rate of the pooling, factors lie around it, numbers are numbers; anything else is refused."""
    assert rate_of("auto", "ep") == POOLINGS["ep"].learning_rate == 0.003
    assert rate_of("auto*3", "mean") == 0.03 and rate_of("auto/3", "mean") == 0.00333 and rate_of("1e-3", "ep") == 1e-3
    for wrong in ("automatic", "auto*0", "auto+1", "fast"):
        with pytest.raises(ValueError, match="learning_rate is"):
            rate_of(wrong, "ep")
    assert HeadRun(HeadConfig("ep"), learning_rate="auto*3").learning_rate == 0.009
    with pytest.raises(ValueError, match="learning_rate is"):
        ProbeTrainingArguments("run", learning_rate="automatic")
    with pytest.raises(ValueError, match="learning_rate is -1"):
        ProbeTrainingArguments("run", learning_rate=-1)


def test_rates_that_are_left_to_us(cached, tmp_path):
    """Heads that name no rate get that of their pooling, with AdamW alone."""
    sweep, _ = cached
    runs = {
        "ep": HeadRun(HeadConfig("ep")),
        "mean": HeadRun(HeadConfig("mean")),
        "own": HeadRun(HeadConfig("mean"), 0.5),
    }
    rates = head_rates(fresh(sweep, runs), ProbeTrainingArguments("run"))
    assert {name: rate.learning_rate for name, rate in rates.items()} == {"ep": 0.003, "mean": 0.01, "own": 0.5}
    with pytest.raises(ValueError, match="measured with adamw; state a rate for sgd"):
        head_rates(fresh(sweep, runs), ProbeTrainingArguments("run", optimizer="sgd"))


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [(1, 1, 100), (20, 16, 100), (640, 32, 25), (4095, 128, 17), (4096, 256, 32), (10**6, 256, 10)],
)
def test_sizes_that_are_left_to_us(images, batch, epochs):
    """Batches of a sixteenth of few images, and as many epochs as make 500 steps, from 10 to 100."""
    assert usual_batch_size(images) == batch
    fitted = fit_to_images(ProbeTrainingArguments("run"), images)
    assert (fitted.batch_size, fitted.num_train_epochs) == (batch, epochs)
    assert usual_epochs(10**6) == 10


def judged_by_folds(backbone, folder):
    """Name -> right or wrong on each image, of heads and references that did not learn from it."""
    sweep = ProbeSweep.from_backbone(backbone, RUNS, num_labels=3)
    split = image_split(sweep.config, 40)
    cache = build_token_cache(
        sweep.backbone,
        split,
        [*sweep.readings, READING],
        sweep.image_processor,
        CacheOptions(folder, encoding="float32"),
    )
    references = {"logistic": Reference("logistic", ("mean",)), "knn": Reference("knn", ("mean",), k=[1, 3])}
    arguments = ProbeTrainingArguments(f"{folder}/run", num_train_epochs=3, batch_size=7, eval_batch_size=5)
    folds = folds_of(cache.labels.numpy(), 3, 0)
    found = cross_validate(sweep, references, arguments, cache, folds, Accelerator())
    return {one.name: one.correct.tolist() for one in found}


def test_folds_on_processes(tiny_backbone, tmp_path):
    """Two processes judge every image once, in order, as one does."""
    alone = judged_by_folds(tiny_backbone("vit"), str(tmp_path / "one"))
    assert set(alone) == {"ep", "noisy", "knn-k=1-temperature=0.07", "knn-k=3-temperature=0.07"} | {
        f"logistic-inverse_l2={value:g}" for value in (0.01, 0.1, 1, 10)
    }
    for found in on_processes(2, judged_by_folds, tiny_backbone("vit"), str(tmp_path / "two")):
        for name in alone.keys() - {"noisy"}:  # the draws of noise differ with the number of processes
            assert found[name] == alone[name]
