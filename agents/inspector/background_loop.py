"""Provides the waits of the inspector's background tasks, which are heat maps, shadow versions and drift."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class BackgroundLoop:
    """Lets a background task wait until there is something to do, until a time has passed, or until the inspector drains."""

    def __init__(self) -> None:
        self.is_closed = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ends the current wait, or the next one if the task is not waiting."""
        self._woken.set()

    def close(self) -> None:
        """Ends the current wait and all later ones, and sets `is_closed`, upon which the task ends."""
        self.is_closed = True
        self._woken.set()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Returns after `wake`, after `close`, or after `timeout_s` seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        if not self.is_closed:
            self._woken.clear()
