"""Scores of every head on every image of a split, each image once, over any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from attentive_probes.data.batches import inputs_of
from attentive_probes.data.finite import only_finite
from attentive_probes.data.split import Split
from attentive_probes.data.steps import StepLoader
from attentive_probes.evaluation.runs.attention_spread import SpreadSums
from attentive_probes.machine.processes import autocast, on_device
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems import Scores, find_problem
from attentive_probes.problems.base import Wanted


class SplitSums:
    """What several heads say about a split, batch by batch.

    Args:
        names: Names of the heads.
        problem_type: Problem type.
        num_labels: Number of classes or targets C.
        accelerator: Where they run, and among which processes; `None` for this one alone.
        confusion: Whether to count labels by predictions, where there are at most 100 classes.
        keep: Names of the heads whose predictions are kept image by image, in a classification.
        probabilities: Whether these are kept with the probabilities of all classes.
        temperatures: Name of a head -> what its logits are divided by before they are probabilities.
    """

    def __init__(
        self,
        names: Sequence[str],
        problem_type: str,
        num_labels: int,
        accelerator: Accelerator | None = None,
        confusion: bool = False,
        keep: Collection[str] = (),
        probabilities: bool = False,
        temperatures: Mapping[str, float | None] | None = None,
    ):
        self.names = names
        wanted = Wanted(
            confusion,
            [place for place, name in enumerate(names) if name in keep],
            probabilities,
            [(temperatures or {}).get(name) for name in names],
        )
        self._sums = find_problem(problem_type).sums(len(names), num_labels, accelerator, wanted)

    def add(self, logits: Tensor, labels: Tensor, images: Tensor | None = None) -> None:
        """Add a batch of this process: logits `(B, H, C)`, labels `(B,)` or `(B, C)`, identities `(B,)`; B may be 0."""
        self._sums.add(logits, labels, images)

    def scores(self) -> dict[str, Scores]:
        """Name -> scores over all batches of all processes.

        Raises:
            ValueError: If there was no image.
        """
        return dict(zip(self.names, self._sums.scores(), strict=True))


@torch.no_grad()
def score_split(
    sweep: ProbeSweep,
    loader: StepLoader,
    accelerator: Accelerator,
    *,
    precision: str = "no",
    confusion: bool = False,
    keep: Collection[str] = (),
    probabilities: bool = False,
    tick: Callable[[int], object] | None = None,
    classes: Tensor | None = None,
    temperatures: Mapping[str, float | None] | None = None,
    spread: SpreadSums | None = None,
) -> dict[str, Scores]:
    """Run all heads over a split in evaluation mode; every process gets what all of them found, each image once.

    Heads run in float32, whatever the precision of the backbone. Scores of classes are summed up where they are made:
    memory is that of a batch and a byte per image and head. Those of several labels or of a regression are kept.

    Args:
        sweep: The heads, on the device of `accelerator`.
        loader: The split, of which each process reads its share.
        accelerator: Where to run.
        precision: Mixed precision of the backbone: `no`, `bf16` or `fp16`.
        confusion: Whether to count labels by predictions, where there are at most 100 classes.
        keep: Names of the heads whose predictions are kept image by image, in a classification.
        probabilities: Whether these are kept with the probabilities of all classes.
        tick: Called with the number of images of each batch, as far as this process can tell.
        classes: Ids `(K,)` of the classes that predictions are chosen among; `None` for all.
        temperatures: Name of a head -> its temperature, for the probabilities that it gives; 1 for others.
        spread: Where to add up how evenly heads that attend spread their attention.

    Raises:
        ValueError: If the split is empty, or the backbone gives tokens that are not finite for an image that is not to
            be left out.
    """
    sweep.eval()
    names = [name for name in sweep.runs if name in sweep.active]
    problem_type, num_labels = sweep.config.problem_type, len(sweep.config.id2label)
    sums = SplitSums(names, problem_type, num_labels, accelerator, confusion, keep, probabilities, temperatures)
    for logits, labels, images in _scored(sweep, loader, accelerator, precision, spread):
        sums.add(logits if classes is None else _among(logits, classes), labels, images)
        if tick is not None:
            tick(len(labels) * accelerator.num_processes)
    return sums.scores()


def _among(logits: Tensor, classes: Tensor) -> Tensor:
    """Logits `(B, H, C)` with no chance for other classes; finite, so that a broken head is still found."""
    others = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others[classes.to(logits.device)] = False
    return logits.masked_fill(others, torch.finfo(logits.dtype).min / 2)


def _scored(
    sweep: ProbeSweep, loader: StepLoader, accelerator: Accelerator, precision: str, spread: SpreadSums | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits `(B, H, C)` of all heads, labels and identities of this process's batches, in turn."""
    for parts in loader:
        for batch in on_device(parts, accelerator.device):
            with autocast(accelerator.device, precision):
                tokens = sweep.tokens_of(**inputs_of(batch))
            tokens, batch = only_finite(tokens, batch, loader.split)
            with autocast(accelerator.device, "no"):
                outputs = sweep.classify(sweep.sequences(tokens))
            if spread is not None:
                spread.add({n: one.attention for n, one in outputs.items() if sweep.heads[n].pooling.shares_out})
            yield torch.stack([output.logits for output in outputs.values()], dim=1), batch["labels"], batch["rows"]


def rows_of(scores: Scores, split: Split) -> np.ndarray:
    """Rows `(N,)` of the scored images in what was read."""
    images = scores.rows
    assert images is not None
    return split.rows_at(images)
