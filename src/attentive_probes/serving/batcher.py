"""Requests that come one by one are answered in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class BusyError(Exception):
    """As many requests wait as may."""


class Batcher:
    """Gathers items for a function of many, which one thread calls; every item gets the result of its own place.

    Args:
        run: Results of a list of items, in their order.
        max_batch: Items per call.
        max_wait: Seconds that an item waits for company, at most.
        max_queue: Items that may wait.
    """

    def __init__(self, run: Callable[[list[Any]], Sequence[Any]], max_batch: int, max_wait: float, max_queue: int):
        self.run, self.max_batch, self.max_wait = run, max_batch, max_wait
        self._queue: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue(max_queue)
        self._thread = ThreadPoolExecutor(1, "batcher")
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Any) -> Any:
        """The result of an item.

        Raises:
            BusyError: If too many wait.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        future = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, future))
        except asyncio.QueueFull:
            raise BusyError from None
        return await future

    async def close(self) -> None:
        """Stop; who still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
        while not self._queue.empty():
            self._queue.get_nowait()[1].cancel()
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [pair for pair in await self._gathered() if not pair[1].done()]  # some went away meanwhile
            if not batch:
                continue
            try:
                results = await loop.run_in_executor(self._thread, self.run, [item for item, _ in batch])
            except Exception as error:
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _gathered(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        batch = [await self._queue.get()]
        end = asyncio.get_running_loop().time() + self.max_wait
        while len(batch) < self.max_batch:
            left = end - asyncio.get_running_loop().time()
            try:
                batch.append(self._queue.get_nowait() if left <= 0 else await asyncio.wait_for(self._queue.get(), left))
            except (asyncio.QueueEmpty, asyncio.TimeoutError):
                break
        return batch
