import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score

from attentive_probes.machine.processes import make_accelerator
from attentive_probes.scores.class_sums import ClassSums, score_classes
from spawned import on_processes

HEADS, CLASSES = 3, 12
SIZES = (7, 0, 20, 13, 1)  # of batches, shared by processes part by part


def scores_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES - 1, (sum(SIZES),), generator=generator)  # the last class has no image
    scores = torch.randn(sum(SIZES), HEADS, CLASSES, generator=generator)
    scores += 2 * torch.nn.functional.one_hot(labels, CLASSES)[:, None]
    return scores, labels


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_sums_are_the_metrics_of_all_scores():
    """In any batches, the values of scikit-learn and of the formula of the calibration error."""
    scores, labels = scores_and_labels()
    sums = ClassSums(HEADS, CLASSES, confusion=True)
    for part, targets in zip(scores.split(SIZES), labels.split(SIZES), strict=True):
        sums.add(part, targets)
    for head, found in enumerate(sums.scores()):
        mine = scores[:, head].double()
        predictions, present = mine.argmax(1), range(CLASSES)
        confidence, bins = mine.softmax(1).amax(1), torch.arange(15)[:, None] / 15
        inside = (confidence > bins) & (confidence <= bins + 1 / 15)
        gaps = (inside * (confidence - (predictions == labels).double())).sum(1).abs().sum()
        assert found.metrics() == pytest.approx(
            {
                "loss": torch.nn.functional.cross_entropy(mine, labels).item(),
                "top1": 100 * (predictions == labels).double().mean().item(),
                "top5": 100 * top_k_accuracy_score(labels, mine, k=5, labels=present),
                "balanced_accuracy": 100 * balanced_accuracy_score(labels, predictions),
                "macro_f1": 100 * f1_score(labels, predictions, average="macro"),
                "ece": 100 * gaps.item() / len(labels),
            },
            rel=1e-5,
        )
        assert (found.correct == (predictions == labels).numpy()).all()
        assert found.confusion.sum() == len(labels) and (found.confusion.sum(1) == found.counts).all()
        assert found.per_class[-1] is None


def shared(scores: torch.Tensor, labels: torch.Tensor) -> list:
    """What is found when each process sees a piece of every batch."""
    accelerator = make_accelerator()
    rank, processes = accelerator.process_index, accelerator.num_processes
    sums = ClassSums(HEADS, CLASSES, accelerator=accelerator)
    for part, targets in zip(scores.split(SIZES), labels.split(SIZES), strict=True):
        mine = slice(rank * len(part) // processes, (rank + 1) * len(part) // processes)
        sums.add(part[mine], targets[mine])
    return [(found.correct.tolist(), found.metrics()) for found in sums.scores()]


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_add_up(processes):
    """Any number of processes finds the same, with the images in the same order."""
    scores, labels = scores_and_labels()
    for found in on_processes(processes, shared, scores, labels):
        for head, (correct, metrics) in enumerate(found):
            alone = score_classes(scores[:, head], labels)
            assert correct == alone.correct.tolist()
            assert metrics == pytest.approx(alone.metrics(), rel=1e-6)


def test_nothing_grows_with_classes():
    """After any number of batches a byte per image and head is kept, and sums of fixed size."""
    sums = ClassSums(2, 1000)
    for _ in range(50):
        sums.add(torch.randn(8, 2, 1000), torch.zeros(8, dtype=torch.long))
    kept = [part for part in sums._correct]
    assert sum(part.numel() * part.element_size() for part in kept) == 50 * 8 * 2
    assert sum(part.numel() for part in sums._sums.values()) < 2 * 4000


def test_equal_scores_answer_one_class():
    """A head that says nothing gets one class of ten right, and five are among its best five."""
    found = score_classes(torch.zeros(10, 10), torch.arange(10))
    assert (found.top1, found.num_in_top5, found.predicted.max()) == (10, 5, 10)


def test_broken_and_infinite_scores_are_told_apart():
    """What is infinite has a rank; what is no number has none, and is counted by image."""
    scores = torch.tensor([[1.0, -torch.inf], [0.0, 1.0]])
    found = score_classes(scores, torch.tensor([0, 0]))
    assert (found.are_finite, found.num_broken, found.top1) == (False, 0, 50)
    assert score_classes(scores, torch.tensor([1, 1])).loss == torch.inf
    scores[1, 1] = torch.nan
    assert score_classes(scores, torch.tensor([0, 0])).num_broken == 1
    with pytest.raises(ValueError, match="no image"):
        ClassSums(2, 3).scores()
