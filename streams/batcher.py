"""The micro-batcher: gathers records for the next batch while the current batch is being processed.

Faust's `Stream.take` is not used, for two reasons: it does not gather records while a batch is being processed, and it acknowledges a batch
even if the processing failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from streams.settings import BatchSettings

Item = TypeVar("Item")


@dataclass(frozen=True)
class QueuedItem(Generic[Item]):
    """An item in the queue. Its time of arrival and its deadline, if it has one, are in seconds of the batcher's clock."""

    item: Item
    arrived_s: float
    deadline_s: float | None


def compute_wait_s(now_s: float, count: int, first_arrived_s: float, earliest_deadline_s: float | None, limits: BatchSettings) -> float:
    """Returns how many seconds a batch of `count` items may still wait, or 0 if the batch is due.

    A batch is due if it is full, its first item has waited `max_wait_s`, or a deadline is near.
    """
    if count >= limits.size:
        return 0.0
    due_s = first_arrived_s + limits.max_wait_s
    if earliest_deadline_s is not None:
        due_s = min(due_s, earliest_deadline_s - limits.deadline_margin_s)
    return max(0.0, due_s - now_s)


def choose_batch_size(count: int, limits: BatchSettings) -> int:
    """Returns the size of the next batch: the largest size in `limits.shapes` that is at most `count`.

    Example: with the sizes 1, 4 and 8, a queue of 9 pictures gives a batch of 8.
    """
    available = min(count, limits.size)
    return max((shape for shape in limits.shapes if shape <= available), default=available)


class Batcher(Generic[Item]):
    """A queue of at most `capacity` items. `get_batch` returns the oldest items as a batch.

    `is_busy` returns True while the caller of `get_batch` still works on earlier batches. As long as it is True, `get_batch` returns
    only full batches. The caller must call `reconsider` when it is no longer busy. `clock` returns monotonic seconds.
    """

    def __init__(
        self, limits: BatchSettings, capacity: int, clock: Callable[[], float], is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._limits = limits
        self._capacity = capacity
        self._clock = clock
        self._is_busy = is_busy
        self._queue: deque[QueuedItem[Item]] = deque()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_open = True

    def __len__(self) -> int:
        return len(self._queue)

    async def put(self, item: Item, deadline_s: float | None) -> None:
        """Waits while the queue is full, then adds `item`.

        If the queue is closed, this call never returns. The task that made the call must then be cancelled.
        """
        while not self._is_open or len(self._queue) >= self._capacity:
            self._has_room.clear()
            await self._has_room.wait()
        self._queue.append(QueuedItem(item, self._clock(), deadline_s))
        self._changed.set()

    async def get_batch(self) -> list[QueuedItem[Item]]:
        """Waits until a batch is due and returns its items in the order of arrival. Returns [] if the queue is closed and empty."""
        while True:
            self._changed.clear()
            wait_s = None
            if self._queue:
                wait_s = self._compute_wait_s()
                if (wait_s is not None and wait_s <= 0) or not self._is_open:
                    break
            elif not self._is_open:
                return []
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                break
        batch = [self._queue.popleft() for _ in range(choose_batch_size(len(self._queue), self._limits))]
        if self._is_open:
            self._has_room.set()
        return batch

    def reconsider(self) -> None:
        """Makes `get_batch` check again whether a batch is due. Call this method when the caller of `get_batch` is no longer busy."""
        self._changed.set()

    def _compute_wait_s(self) -> float | None:
        """Returns how many seconds the next batch may still wait, or 0 if it is due.

        Returns None if the caller of `get_batch` is busy and the next batch is not full. The batch then waits until the caller is free.
        """
        if self._is_busy() and len(self._queue) < self._limits.size:
            return None
        # The next batch has at most `limits.size` items, so only the deadlines of these items count.
        members = [self._queue[index] for index in range(min(self._limits.size, len(self._queue)))]
        deadlines = [member.deadline_s for member in members if member.deadline_s is not None]
        return compute_wait_s(self._clock(), len(self._queue), members[0].arrived_s, min(deadlines, default=None), self._limits)

    @property
    def is_closed(self) -> bool:
        return not self._is_open

    def close(self) -> None:
        """Stops accepting items. After this call, `get_batch` returns the items that are still queued, and then only empty lists."""
        self._is_open = False
        self._changed.set()
