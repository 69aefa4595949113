"""What a run says against its own numbers: when it should, and not otherwise."""

import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.diagnostics import doubts_of
from attentive_probes.evaluation.runs.head_result import HeadResult
from tiny import image_dataset


def head(rate=0.1, top1=80.0, best_epoch=2, losses=((1.0, 1.0), (0.9, 0.9), (0.8, 0.8)), test=None, family="ep"):
    history = [{"epoch": e, "train_loss": t, "loss": v, "top1": top1} for e, (t, v) in enumerate(losses, 1)]
    validation = {"loss": 0.9, "top1": top1}
    return HeadResult(f"{family}-lr={rate:g}", {"pooling": "ep"}, rate, 0.0, 1, 0, family, best_epoch,
                      validation=validation, history=history, test=test)  # fmt: skip


def doubts(*heads, validation=1000, test=1000):
    data = {"validation": {"images": validation}, "test": {"images": test}}
    return " ".join(doubts_of(SweepResults(list(heads), "top1", {}, {}, data)))


def test_a_run_without_doubts():
    """The best rate in the middle, the best epoch before the last, losses that fall, test like validation."""
    heads = [head(0.01, 70.0), head(0.1, 80.0, test={"top1": 79.0}), head(1.0, 75.0)]
    assert doubts(*heads) == ""


@pytest.mark.parametrize(("rates", "said"), [((0.1, 1.0), "smallest"), ((0.01, 0.1), "largest"), ((0.1,), None)])
def test_the_best_rate_at_the_edge(rates, said):
    """The best of several rates is the smallest or largest; a single one is no choice."""
    found = doubts(*(head(rate, 80.0 if rate == 0.1 else 70.0) for rate in rates))
    assert (f"0.1, is the {said} of those" in found) if said else found == ""


def test_no_advice_from_what_cannot_be_told_apart():
    """An edge that is no better than its neighbour by its error, or a head that guesses, says nothing about rates."""
    heads = [head(rate, top1) for rate, top1 in ((0.1, 80.0), (1.0, 79.0))]
    heads[0].validation_interval = [77.4, 82.4]
    assert doubts(*heads) == ""
    heads[0].validation_interval = [79.5, 80.5]
    assert "is the smallest" in doubts(*heads)
    data = {"validation": {"images": 1000, "largest_class": 79.6}, "test": {"images": 1000}}
    assert doubts_of(SweepResults(heads, "top1", {}, {}, data)) == []


def test_epochs_and_fit():
    """The last epoch was the best; the validation loss rises while the training loss falls."""
    assert "was best in its last epoch (3)" in doubts(head(best_epoch=3))
    rising = ((1.0, 1.0), (0.5, 0.9), (0.1, 1.2))
    assert "overfits: its validation loss rose from 0.90 (epoch 2) to 1.20" in doubts(head(losses=rising))
    assert doubts(head(losses=((1.0, 1.0), (0.5, 0.9), (0.4, 0.95)))) == ""
    assert doubts(head(losses=((1.0, None), (0.5, None)), best_epoch=1)) == ""


def test_validation_and_test():
    """They differ by more than chance on many images, not on few."""
    one = head(test={"top1": 70.0})
    assert "80.00 on validation and 70.00 on test" in doubts(one)
    assert doubts(one, validation=50, test=50) == ""


def test_looking_for_doubts_changes_no_head(tiny_backbone, tmp_path):
    """Counting queries leaves weights and running statistics, and the mode of a head, as they were."""
    heads = {name: HeadRun(HeadConfig(name, {"num_attention_heads": 4})) for name in ("aim", "cae")}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), heads, labels=["band 0", "band 1", "band 2"]).train()
    before = {key: value.clone() for key, value in sweep.state_dict().items()}
    arguments = ProbeTrainingArguments(str(tmp_path / "run"), num_train_epochs=1, batch_size=8)
    ProbeTrainer(sweep, arguments, image_dataset(24), image_dataset(12, seed=1))
    assert all(torch.equal(value, before[key]) for key, value in sweep.state_dict().items())
    assert all(head.pooling.training for head in sweep.heads.values())


def test_a_run_notes_what_it_finds(tiny_backbone, tmp_path):
    """Splits that lack classes, and heads with more queries than tokens, are named in the results, once."""
    names = ["band 0", "band 1", "band 2"]
    runs = {
        "many": HeadRun(HeadConfig("ep", {"num_queries": 4}, ("cls", "mean"))),
        "few": HeadRun(HeadConfig("ep", {"num_queries": 4})),
    }
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=names)
    arguments = ProbeTrainingArguments(str(tmp_path / "run"), num_train_epochs=1, batch_size=8, learning_rate=0.01)
    validation = image_dataset(12, seed=1).filter(lambda row: row["label"] != 1)
    trainer = ProbeTrainer(sweep, arguments, image_dataset(24), validation)
    results = trainer.train()
    trainer.test(image_dataset(12, seed=2).filter(lambda row: row["label"] == 0))
    found = " ".join(results.warnings)
    assert "The validation split has no image of 1 of 3 classes (band 1)." in found
    assert "The test split has no image of 2 of 3 classes (band 1, band 2)." in found
    assert "The head many reads 2 tokens with 4 queries" in found and "head few reads" not in found
    assert "was best in its last epoch (1)" in found and len(set(results.warnings)) == len(results.warnings)
