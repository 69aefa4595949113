"""Sums over images of what heads get right in a classification, batch by batch where they run: no score is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.image_records import ImageRecords

if TYPE_CHECKING:
    from accelerate import Accelerator

NUM_BINS = 15  # of confidence
COUNTED = ("loss", "in_top5", "is_broken", "is_infinite")  # summed over images as they are
NO_IMAGE = "There is no image to evaluate on."
CACHED_SCORES = 2**17  # scores that stay in the cache of a core


class ClassSums:
    """Sums over images of what several heads say about them; memory does not grow but by a bit per image and head.

    Args:
        num_heads: Number of heads H.
        num_labels: Number of classes C.
        confusion: Whether to count labels by predictions, `(H, C, C)`.
        keep: Numbers of the heads whose predictions are kept image by image.
        probabilities: Whether these are kept with the probabilities of all classes.
        temperatures: What the scores of each head are divided by before they are probabilities; `None` for 1.
        accelerator: Among which processes; `None` for this one alone.
    """

    def __init__(
        self,
        num_heads: int,
        num_labels: int,
        confusion: bool = False,
        keep: Sequence[int] = (),
        probabilities: bool = False,
        temperatures: Sequence[float | None] = (),
        accelerator: Accelerator | None = None,
    ):
        self.accelerator = accelerator
        self.temperatures = [temperature or 1.0 for temperature in temperatures]
        self.num_heads, self.num_labels, self.keep = num_heads, num_labels, list(keep)
        self.probabilities = probabilities
        self._widths = {
            "counted": len(COUNTED),
            "bins": 3 * NUM_BINS,
            **dict.fromkeys(("hits", "predicted", "counts"), num_labels),
            "confusion": num_labels**2 if confusion else 0,
        }
        self._sums: dict[str, Tensor] = {}
        self._correct: list[Tensor] = []
        self._kept: list[tuple[Tensor, ...]] = []

    def add(self, scores: Tensor, labels: Tensor, images: Tensor | None = None) -> None:
        """Add a batch: scores `(B, H, C)` and labels `(B,)`; B may be 0. The first one says where the sums are.

        Args:
            scores: What the heads say.
            labels: What is right.
            images: `(B,)`, the identities of the images, for a head that is kept.
        """
        exact = torch.float32 if scores.device.type == "mps" else torch.float64
        if not self._sums:
            nothing = torch.zeros(self.num_heads, 1, dtype=exact, device=scores.device)
            self._sums = {name: nothing.repeat(1, width) for name, width in self._widths.items()}
        of_rows = labels.repeat_interleave(self.num_heads) if self.num_heads > 1 else labels
        scales = None
        if any(temperature != 1 for temperature in self.temperatures):
            scales = torch.tensor(self.temperatures, dtype=scores.dtype, device=scores.device).repeat(len(labels))
        parts = [_judge(*part) for part in _parts(scores.flatten(0, 1), of_rows, scales)]
        rows = parts[0] if len(parts) == 1 else _Rows(*(torch.cat(part) for part in zip(*parts, strict=True)))
        correct = rows.correct.view(len(labels), self.num_heads)
        self._correct.append(correct)
        if self.keep and images is not None:
            predictions, confidence = (
                part.view(correct.shape)[:, self.keep] for part in (rows.answer, rows.confidence)
            )
            kept = scores if scales is None else scores / scales.view(len(labels), -1, 1)
            whole = (kept[:, self.keep].float().softmax(-1),) if self.probabilities else ()
            self._kept.append((images, labels, predictions, confidence, *whole))
        counted = torch.stack([getattr(rows, name).to(exact) for name in COUNTED], 1)
        self._sums["counted"] += counted.view(len(labels), self.num_heads, len(COUNTED)).sum(0)
        heads = torch.arange(self.num_heads, device=scores.device).repeat(len(labels))
        one = torch.ones((), dtype=exact, device=scores.device).expand(len(of_rows))
        for name, columns, values in (
            ("hits", of_rows, rows.correct),
            ("predicted", rows.answer, one),
            ("counts", of_rows, one),
            ("confusion", of_rows * self.num_labels + rows.answer, one),
        ):
            sums = self._sums[name]
            if sums.numel():
                sums.view(-1).index_add_(0, heads * sums.shape[1] + columns, values.to(exact))
        in_bins = torch.stack([one, rows.correct.to(exact), rows.confidence.to(exact)], 1)
        self._sums["bins"].view(-1, 3).index_add_(0, heads * NUM_BINS + _bin_of(rows.confidence), in_bins)

    def scores(self) -> list[ClassScores]:
        """What each head got right, over all processes, with images in the order of the split.

        Raises:
            ValueError: If there was no image.
        """
        accelerator = self.accelerator
        sums, correct = self._sums, [part.cpu().numpy() for part in self._correct]
        kept = [[part.cpu().numpy() for part in parts] for parts in self._kept]
        if accelerator is not None and accelerator.num_processes > 1:
            sums = {name: accelerator.reduce(part, "sum") for name, part in sums.items()}
            # Here, so that a probe that is only used does without Accelerate.
            from accelerate.utils import gather_object

            everyone = gather_object([(correct, kept)])
            correct, kept = ([part for parts in zip(*lists, strict=True) for part in parts] for lists in
                             zip(*everyone, strict=True))  # fmt: skip
        bits = np.concatenate(correct) if correct else np.empty((0, self.num_heads), bool)
        if len(bits) == 0:
            raise ValueError(NO_IMAGE)
        on_cpu = {name: part.cpu() for name, part in sums.items()}
        records: dict[int, ImageRecords] = {}
        if kept:
            images, labels, *of_heads = map(np.concatenate, zip(*kept, strict=True))
            records = {
                head: ImageRecords(images, labels, *(part[:, place] for part in of_heads))
                for place, head in enumerate(self.keep)
            }
        return [self._scores_of(i, bits[:, i], on_cpu, records.get(i)) for i in range(self.num_heads)]

    def _scores_of(
        self, head: int, correct: np.ndarray, sums: dict[str, Tensor], records: ImageRecords | None
    ) -> ClassScores:
        mine = {name: part[head] for name, part in sums.items()}
        hits, predicted, counts, confusion = (
            mine[name].long() for name in ("hits", "predicted", "counts", "confusion")
        )
        loss, in_top5, broken, infinite = mine["counted"].tolist()
        return ClassScores(
            correct,
            int(in_top5),
            loss / len(correct),
            mine["bins"].view(NUM_BINS, 3),
            hits,
            predicted,
            counts,
            confusion.view(self.num_labels, -1) if len(confusion) else None,
            are_finite=infinite == 0,
            num_broken=int(broken),
            records=records,
        )


def _parts(scores: Tensor, labels: Tensor, scales: Tensor | None) -> Iterable[tuple[Tensor, Tensor, Tensor | None]]:
    """On a CPU a few rows at a time, which stay in its cache."""
    size = max(1, CACHED_SCORES // scores.shape[1] if scores.device.type == "cpu" else len(scores))
    parts = scores.split(size)
    return zip(
        parts, labels.split(size), scales.split(size) if scales is not None else [None] * len(parts), strict=True
    )


class _Rows(NamedTuple):
    """What is known of each of R rows of scores, all `(R,)`."""

    answer: Tensor
    correct: Tensor
    in_top5: Tensor
    loss: Tensor
    confidence: Tensor
    is_broken: Tensor
    is_infinite: Tensor


def _judge(scores: Tensor, labels: Tensor, scales: Tensor | None = None) -> _Rows:
    """Judge scores `(R, C)` by labels `(R,)`; of equal best scores the answer is the one that `torch.topk` names.

    Confidence is that of scores over their scales `(R,)`, the temperatures; the loss is that of the scores.

    A class of score `-inf`, such as one without a single vote, is never among the best.
    """
    first = scores.topk(min(5, scores.shape[1]), dim=1)
    best, answer = first.values[:, 0], first.indices[:, 0]
    own = scores.gather(1, labels[:, None]).squeeze(1)
    behind = scores - best[:, None]
    told = None if scales is None else (behind / scales[:, None]).exp_().sum(1)
    mass = behind.exp_().sum(1)
    told = mass if told is None else told
    is_possible = own > -torch.inf
    correct = (answer == labels) & is_possible
    is_infinite = ~(best.isfinite() & scores.amin(1).isfinite())
    in_top5 = (first.indices == labels[:, None]).any(1) & is_possible
    return _Rows(answer, correct, in_top5, mass.log() + (best - own), 1 / told, best.isnan(), is_infinite)


def _bin_of(confidence: Tensor) -> Tensor:
    return (confidence * NUM_BINS).nan_to_num().ceil().long().clamp(1, NUM_BINS) - 1


def score_classes(
    scores: Tensor,
    labels: Tensor,
    confusion: bool = False,
    temperature: float | None = None,
    images: Tensor | None = None,
) -> ClassScores:
    """What scores `(N, C)` that are there already get right of labels `(N,)`; confidence is after the temperature.

    With identities of the images `(N,)`, the predictions are kept image by image.
    """
    sums = ClassSums(1, scores.shape[1], confusion, () if images is None else [0], temperatures=[temperature])
    sums.add(scores[:, None], labels, images)
    return sums.scores()[0]
