"""Lets the inspector's background tasks (shadow versions and drift) wait until they have something to do."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class BackgroundLoop:
    """Lets a background task wait for its next work. A wait also ends after a timeout, and when the inspector stops."""

    def __init__(self) -> None:
        self.is_closed = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ends the current wait. If the task is not waiting, its next wait ends at once."""
        self._woken.set()

    def close(self) -> None:
        """Sets `is_closed`, so that the task ends. The current wait and all later waits end at once."""
        self.is_closed = True
        self._woken.set()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Waits until `wake` or `close` is called, but for at most `timeout_s` seconds. If `timeout_s` is None, the wait has no limit."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        if not self.is_closed:
            self._woken.clear()
