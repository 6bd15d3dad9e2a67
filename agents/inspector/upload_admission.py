"""Queues uploaded pictures, so that pictures from cameras are judged first.

A decoded upload joins a batch when no picture from a camera waits. If pictures from cameras keep waiting, the upload joins a batch two
seconds after it was decoded.

If too many uploads wait, the oldest ones get the label `review` without being decoded, so that the queue becomes shorter. If the queue
became full, the worker would accept no more records, not even records with pictures from cameras.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_LONGEST_WAIT_S = 2.0
_CHECK_S = 0.01
# If uploads fill more than this share of the queue, the oldest uploads get `review` without being decoded. The rest of the queue is
# free for uploads that arrive before the queue has become shorter.
_CROWDED_SHARE = 0.5


class UploadAdmission(Generic[Item]):
    """A queue of at most `capacity` uploaded pictures. Passes each item to `admit` in the order of arrival.

    - `admit`: receives the item and its deadline (monotonic seconds).
    - `max_bytes`: limit for the total size of the waiting records. While it is exceeded, the queue is crowded, and no upload is decoded.
    - `is_idle`: returns whether no picture from a camera waits.
    - `abort_decoding`: called when the queue becomes crowded. Stops the decoding of a picture, which then gets an error.
    """

    def __init__(
        self,
        admit: Callable[[Item, float | None], Awaitable[None]],
        capacity: int,
        max_bytes: int,
        is_idle: Callable[[], bool] = lambda: True,
        abort_decoding: Callable[[], None] = lambda: None,
    ) -> None:
        self._admit = admit
        self._max_count = int(capacity * _CROWDED_SHARE)
        self._max_bytes = max_bytes
        self._is_idle = is_idle
        self._abort_decoding = abort_decoding
        self._queue: asyncio.Queue[tuple[Item, Future[Any] | None, float | None, int] | None] = asyncio.Queue(capacity)
        self._waiting_bytes = 0
        self._is_closed = False
        self._is_empty = asyncio.Event()

    @property
    def is_crowded(self) -> bool:
        """True while too many uploads wait. The inspector then decodes no upload. Any thread may read this property."""
        return self._queue.qsize() > self._max_count or self._waiting_bytes > self._max_bytes

    async def put(self, item: Item, decoding: Future[Any] | None, deadline_s: float | None, size: int = 0) -> None:
        """Adds an uploaded picture. Waits while the queue is full. After a call of `drain`, this method waits for ever.

        `decoding` is the future of the decoded picture, or None. `size` is the size of the record, in bytes.
        """
        if self._is_closed:
            await asyncio.Event().wait()
        await self._queue.put((item, decoding, deadline_s, size))
        # While this method waits for a free place in the queue, a rebalance can cancel it. So the size is added only when the upload is in
        # the queue.
        self._waiting_bytes += size
        if self.is_crowded:
            self._abort_decoding()

    async def run(self) -> None:
        """Passes the queued items to `admit`, one after another, each as soon as its upload is decoded. Ends after `drain`."""
        while (waiting := await self._queue.get()) is not None:
            item, decoding, deadline_s, size = waiting
            if decoding is not None:
                # An error of the decoder is ignored here. The inspector later gets the error from the same future.
                with suppress(Exception):
                    await asyncio.wrap_future(decoding)
                await self._wait_for_spare_time()
            self._waiting_bytes -= size
            await self._admit(item, deadline_s)
        self._is_empty.set()

    async def drain(self) -> None:
        """Accepts no more items. Returns when all items have been passed to `admit`."""
        self._is_closed = True
        await self._queue.put(None)
        await self._is_empty.wait()

    async def _wait_for_spare_time(self) -> None:
        until_s = time.monotonic() + _LONGEST_WAIT_S
        # The loop polls, because no event is sent when the last picture from a camera has been judged.
        while not (self._is_idle() or self._is_closed or self.is_crowded) and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(_CHECK_S)
