"""Answers to images with several labels each, or with numbers to predict, kept batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attentive_probes.problems.base import Problem
from attentive_probes.problems.target_scores import TargetScores
from attentive_probes.scores.class_sums import NO_IMAGE

if TYPE_CHECKING:
    from accelerate import Accelerator


class TargetSums:
    """Keeps what several heads say about a split.

    Args:
        problem: What the targets are.
        num_heads: Number of heads H.
        accelerator: Among which processes; `None` for this one alone.
    """

    def __init__(self, problem: Problem, num_heads: int, accelerator: Accelerator | None = None):
        self.problem, self.num_heads, self.accelerator = problem, num_heads, accelerator
        self._kept: list[dict[str, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor, images: Tensor | None = None) -> None:
        """Add a batch of this process: logits `(B, H, C)`, targets `(B,)` or `(B, C)`, identities `(B,)`."""
        rows = {"labels": labels, "logits": logits, **({} if images is None else {"images": images})}
        if self.accelerator is not None:
            # Here, so that a probe that is only used does without Accelerate.
            from attentive_probes.machine.processes import gather_rows

            rows = gather_rows(rows, self.accelerator)
        self._kept.append({name: part.cpu() for name, part in rows.items()})

    def scores(self) -> list[TargetScores]:
        """Scores of each head over all batches of all processes.

        Raises:
            ValueError: If there was no image.
        """
        if not any(len(part["labels"]) for part in self._kept):
            raise ValueError(NO_IMAGE)
        logits, labels = (torch.cat([part[name] for part in self._kept]) for name in ("logits", "labels"))
        rows = torch.cat([part["images"] for part in self._kept]).numpy() if "images" in self._kept[0] else None
        return [TargetScores(logits[:, i], labels, self.problem, rows) for i in range(self.num_heads)]
