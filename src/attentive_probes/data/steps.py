"""Which images make an optimizer step, in which parts and on which process: the same images however work is split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.utils.data
from torch.utils.data import DataLoader

from attentive_probes.data.split import Split

T = TypeVar("T")
Batch = dict[str, Any]


@dataclass(frozen=True)
class StepPlan:
    """How the images of a split become optimizer steps.

    Args:
        batch_size: Images per step, over all processes.
        drop_last: Whether the last, incomplete step of a pass is left out, unless it is the only one.
        parts: Parts, one after the other, in which a step passes through the model.
        rank: Number of this process.
        processes: Number of processes that share every part.
    """

    batch_size: int
    drop_last: bool = False
    parts: int = 1
    rank: int = 0
    processes: int = 1

    def num_steps(self, num_images: int) -> int:
        """Steps of a pass over so many images."""
        full, rest = divmod(num_images, self.batch_size)
        return full + int(rest > 0 and not (self.drop_last and full))

    def mine(self, images: Sequence[T]) -> list[list[T]]:
        """The images of one step that fall to this process, part by part; a process may get none.

        An incomplete step has as many parts as it needs, all of about the same size.
        """
        count = -(-len(images) // -(-self.batch_size // self.parts))
        parts = [_piece(images, i, count) for i in range(count)]
        return [list(_piece(part, self.rank, self.processes)) for part in parts]


def _piece(values: Sequence[T], index: int, count: int) -> Sequence[T]:
    """Piece `index` of `count` pieces whose lengths differ by one at most."""
    return values[index * len(values) // count : (index + 1) * len(values) // count]


class StepLoader:
    """Reads a split step by step. An item is the list of the parts of a step, each a batch of this process's images.

    Args:
        split: Images, a stream of images, or cached tokens, which are batches already.
        views: What draws the views of an epoch: the collator that makes batches of examples, or the cache itself.
        plan: How images become steps.
        order: Rows of a held split in the order in which the current epoch reads them.
        num_workers: Worker processes that decode.
        num_images: Number of rows of the order, if it is not that of the split.

    Attributes:
        start: Number of steps that the next pass leaves out, as after a resume.
    """

    def __init__(
        self,
        split: Split,
        views: Any,
        plan: StepPlan,
        order: Callable[[], Sequence[int]],
        num_workers: int = 0,
        num_images: int | None = None,
    ):
        self.split, self.views, self.plan, self.start, self._num_images = split, views, plan, 0, num_images
        dataset: _StreamSteps | _SplitSteps
        sampler: _StepSampler | None
        if split.num_images is None:
            dataset, sampler = _StreamSteps(split, plan), None
        else:
            dataset, sampler = _SplitSteps(split), _StepSampler(self._count(), plan, order)
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            collate_fn=_same if split.holds_tokens else _Parts(views),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose order and views, from 1 in training."""
        self.views.epoch = epoch
        self.split.set_epoch(epoch)

    def __len__(self) -> int:
        """Steps of a pass.

        Raises:
            TypeError: If the split is a stream.
        """
        if self.split.num_images is None:
            raise TypeError("A stream has no known length.")
        return self.plan.num_steps(self._count())

    def _count(self) -> int:
        count = self.split.num_images if self._num_images is None else self._num_images
        assert count is not None
        return count

    def __iter__(self) -> Iterator[list[Batch]]:
        start, self.start = self.start, 0
        sampler = self._loader.sampler
        if isinstance(sampler, _StepSampler):
            sampler.start = start
            steps = plain_errors(self._loader)
            if self.split.holds_tokens and not self._loader.pin_memory:
                # Batches that are whole already need no loader.
                steps = (self._loader.dataset[parts] for parts in sampler)
            return read_ahead(steps) if getattr(self.split, "keep", None) == "disk" else steps
        return islice(plain_errors(self._loader), start, None)


def plain_errors(loader: Iterable[T]) -> Iterator[T]:
    """What a loader gives; a `ValueError` of a worker process comes as the sentence that it was.

    Raises:
        ValueError: As in the workers.
    """
    try:
        yield from loader
    except ValueError as error:
        text = str(error)
        if not text.startswith("Caught ValueError in DataLoader worker"):
            raise
        raise ValueError(text.rpartition("\nValueError: ")[2].strip()) from error


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread gets the next one while the last one is used."""
    end = object()
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, items, end)
            yield item  # type: ignore[misc]  # not the end


class _SplitSteps(torch.utils.data.Dataset):
    """Steps of a split that is held: what its rows hold, part by part."""

    def __init__(self, split: Any):
        self.split = split

    def __getitem__(self, parts: list[list[int]]) -> list[Any]:
        return [self.split.__getitems__(rows) for rows in parts]


class _StepSampler(torch.utils.data.Sampler[list[list[int]]]):
    """The rows of every step that fall to this process, part by part."""

    def __init__(self, num_images: int, plan: StepPlan, order: Callable[[], Sequence[int]]):
        self.num_images, self.plan, self.order, self.start = num_images, plan, order, 0

    def __len__(self) -> int:
        return self.plan.num_steps(self.num_images)

    def __iter__(self) -> Iterator[list[list[int]]]:
        order, size = self.order(), self.plan.batch_size
        for step in range(self.start, len(self)):
            yield self.plan.mine(order[step * size : (step + 1) * size])


class _StreamSteps(torch.utils.data.IterableDataset):
    """Steps of a stream, as `_StepSampler` makes them; every process reads it all, every worker a part of it."""

    def __init__(self, split: Any, plan: StepPlan):
        self.split, self.plan = split, plan

    def __iter__(self) -> Iterator[list[list[Any]]]:
        examples, is_first = iter(self.split), True
        while images := list(islice(examples, self.plan.batch_size)):
            if len(images) < self.plan.batch_size and self.plan.drop_last and not is_first:
                return
            yield self.plan.mine(images)
            is_first = False


class _Parts:
    """Collates each part of a step."""

    def __init__(self, collate: Callable[[list[Any]], Batch]):
        self.collate = collate

    def __call__(self, parts: list[list[Any]]) -> list[Batch]:
        return [self.collate(examples) for examples in parts]


def _same(parts: list[Batch]) -> list[Batch]:
    return parts
