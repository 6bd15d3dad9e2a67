"""The threads in which the HTTP server of the gateway uses the spools: one for each line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web

Result = TypeVar("Result")


class RequestThreads:
    """Calls functions that can wait for the disk of a line's spool. All methods are called in the event loop.

    Each line has one thread, because its spool serves one thread at a time. If the disk of a line hangs, only requests of this line wait.
    """

    def __init__(self) -> None:
        self._threads: dict[str, ThreadPoolExecutor] = {}

    async def call(self, line: str, use: Callable[[], Result]) -> Result:
        """Returns `use()`, which is called in the thread of `line`. A call that is cancelled before its turn is not made."""
        if line not in self._threads:
            self._threads[line] = ThreadPoolExecutor(1, f"requests-{line}")
        return await asyncio.get_running_loop().run_in_executor(self._threads[line], use)

    async def close(self, app: web.Application) -> None:
        """Ends the threads, but does not wait for a thread that waits for the disk. The application `app` calls this method at its end."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)


REQUEST_THREADS = web.AppKey("request_threads", RequestThreads)


def add_request_threads(app: web.Application) -> RequestThreads:
    """Adds RequestThreads to the application under the key REQUEST_THREADS, and returns them."""
    threads = app[REQUEST_THREADS] = RequestThreads()
    app.on_cleanup.append(threads.close)
    return threads
