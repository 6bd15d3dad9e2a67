"""Holds uploaded pictures back until they are decoded, so that no batch with pictures of cameras waits for a stranger's picture."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class UploadAdmission(Generic[Item]):
    """A queue whose items go on, in the order of their arrival, as soon as they are decoded. Used within one event loop.

    `admit` takes over an item with its deadline, in monotonic seconds. `capacity` is the largest number of items that wait.
    """

    def __init__(self, admit: Callable[[Item, float | None], Awaitable[None]], capacity: int) -> None:
        self._admit = admit
        self._queue: asyncio.Queue[tuple[Item, Future[Any] | None, float | None] | None] = asyncio.Queue(capacity)
        self._is_closed = False
        self._is_empty = asyncio.Event()

    async def put(self, item: Item, decoding: Future[Any] | None, deadline_s: float | None) -> None:
        """Adds an item, and waits while the queue is full. `decoding` is the running decoder, or None if nothing has to be decoded.

        After `drain` the call never returns, so its task has to be cancelled.
        """
        if self._is_closed:
            await asyncio.Event().wait()
        await self._queue.put((item, decoding, deadline_s))

    async def run(self) -> None:
        """Admits item after item, until the queue is drained."""
        while (waiting := await self._queue.get()) is not None:
            item, decoding, deadline_s = waiting
            if decoding is not None:
                # Who takes the item over asks for the result again, and handles the error.
                with suppress(Exception):
                    await asyncio.wrap_future(decoding)
            await self._admit(item, deadline_s)
        self._is_empty.set()

    async def drain(self) -> None:
        """Accepts no more items, and returns once all have been admitted."""
        self._is_closed = True
        await self._queue.put(None)
        await self._is_empty.wait()
