"""Queues uploaded pictures until they are decoded, so that a camera's picture does not wait for the decoding of an upload.

A camera's picture waits only if too many uploads wait: as many as the setting `inspector.buffer` allows, or records of half of
`kafka.buffer_bytes`. The worker then accepts no record, neither an upload nor a camera's picture, until an upload has been judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class UploadAdmission(Generic[Item]):
    """A queue of at most `capacity` uploaded pictures. Passes each item to `admit` in the order of arrival, when its picture is decoded.

    `admit` receives the item and its deadline (monotonic seconds).
    """

    def __init__(self, admit: Callable[[Item, float | None], Awaitable[None]], capacity: int) -> None:
        self._admit = admit
        self._queue: asyncio.Queue[tuple[Item, Future[Any] | None, float | None] | None] = asyncio.Queue(capacity)
        self._is_closed = False
        self._is_empty = asyncio.Event()

    async def put(self, item: Item, decoding: Future[Any] | None, deadline_s: float | None) -> None:
        """Adds an item. Waits while the queue is full. After `drain`, this method never returns.

        `decoding` is the future of the decoded picture, or None.
        """
        if self._is_closed:
            await asyncio.Event().wait()
        await self._queue.put((item, decoding, deadline_s))

    async def run(self) -> None:
        """Passes the queued items to `admit`, one after another, each as soon as its upload is decoded. Ends after `drain`."""
        while (waiting := await self._queue.get()) is not None:
            item, decoding, deadline_s = waiting
            if decoding is not None:
                # An error of the decoder is ignored here. The inspector later gets the error from the same future.
                with suppress(Exception):
                    await asyncio.wrap_future(decoding)
            await self._admit(item, deadline_s)
        self._is_empty.set()

    async def drain(self) -> None:
        """Accepts no more items. Returns when all items have been passed to `admit`."""
        self._is_closed = True
        await self._queue.put(None)
        await self._is_empty.wait()
