"""Waits for the tasks of the event loop in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def wait_until(condition: Callable[[], object]) -> None:
    """Returns when the result of `condition` is true. Fails after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  The tested objects have no event for a test.
            await asyncio.sleep(0.005)


async def run_ready_tasks() -> None:
    """Lets each task of the event loop run until it waits for something that a test must command."""
    for _ in range(50):
        await asyncio.sleep(0)
