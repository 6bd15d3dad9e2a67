"""The micro-batcher: gathers what arrives while the batch before is computed.

Faust's own `take` is not used: it acknowledges a batch that failed, starts its clock before the first arrival, and gathers
nothing while its body runs.
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
    """One item that waits: when it arrived and by when it must be decided, both on the batcher's clock, seconds."""

    item: Item
    arrived_s: float
    deadline_s: float | None


def compute_wait_s(now_s: float, count: int, first_arrived_s: float, earliest_deadline_s: float | None, limits: BatchSettings) -> float:
    """How long a batch of `count` may still wait for company; 0 when it is to go now.

    It goes when it is full, when its first item has waited `max_wait_s`, or when a deadline is nearer than `deadline_margin_s`.
    """
    if count >= limits.size:
        return 0.0
    until = first_arrived_s + limits.max_wait_s
    if earliest_deadline_s is not None:
        until = min(until, earliest_deadline_s - limits.deadline_margin_s)
    return max(0.0, until - now_s)


def choose_batch_size(count: int, limits: BatchSettings) -> int:
    """How many of `count` waiting items go: as many as fill a shape, so that nothing is computed for padding.

    The rest goes at once after them. Padded up instead, 9 pictures cost as much as 16, which lets 16 gather, and so on up.
    """
    most = min(count, limits.size)
    return max((shape for shape in limits.shapes if shape <= most), default=most)


class Batcher(Generic[Item]):
    """A bounded queue whose reader gets batches, oldest first. For one event loop; `clock` gives monotonic seconds."""

    def __init__(
        self, limits: BatchSettings, capacity: int, clock: Callable[[], float], is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        """While `busy`, who takes the batches is not done with the one before, and only a full one is worth taking: a smaller one
        would only wait elsewhere, where it cannot grow. `look_again` is to be called when it is over.
        """
        self._limits = limits
        self._capacity = capacity
        self._clock = clock
        self._is_busy = is_busy
        self._waiting: deque[QueuedItem[Item]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._open = True

    def __len__(self) -> int:
        return len(self._waiting)

    async def put(self, item: Item, deadline_s: float | None) -> None:
        """Adds `item`; waits while `most` items are held, and for ever once closed (the caller is to be cancelled)."""
        while not self._open or len(self._waiting) >= self._capacity:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(QueuedItem(item, self._clock(), deadline_s))
        self._changed.set()

    async def get_batch(self) -> list[QueuedItem[Item]]:
        """The next batch, 1 to `size` items that fill a shape, in the order of their arrival; an empty list once closed and empty."""
        while True:
            self._changed.clear()
            if self._waiting:
                left_s = self._time_left_s()
                if (left_s is not None and left_s <= 0) or not self._open:
                    break
            elif not self._open:
                return []
            else:
                left_s = None
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                break
        batch = [self._waiting.popleft() for _ in range(choose_batch_size(len(self._waiting), self._limits))]
        if self._open:
            self._room.set()
        return batch

    def reconsider(self) -> None:
        """What `busy` says has changed."""
        self._changed.set()

    def _time_left_s(self) -> float | None:
        """None: as long as nothing changes."""
        if self._is_busy() and len(self._waiting) < self._limits.size:
            return None
        # Only the first `size` go into the next batch, so only their deadlines count.
        members = [self._waiting[place] for place in range(min(self._limits.size, len(self._waiting)))]
        deadlines = [member.deadline_s for member in members if member.deadline_s is not None]
        return compute_wait_s(self._clock(), len(self._waiting), members[0].arrived_s, min(deadlines, default=None), self._limits)

    @property
    def is_closed(self) -> bool:
        return not self._open

    def close(self) -> None:
        """Takes nothing more; `take` hands out what is held, then an empty list."""
        self._open = False
        self._changed.set()
