"""The services of the operating system that the roles use: threads, events, conditions, pauses and the wall clock.

A class that needs one of these services has the argument `system`. The tests in `tests/simulation` pass an object with virtual time as this
argument, so that the same seed always gives the same order of events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime


class OperatingSystem:
    """Makes threads, pauses threads and tells the time with the operating system of this machine."""

    def make_thread(self, name: str, work: Callable[[], object]) -> threading.Thread:
        """Returns a daemon thread that calls `work` after its start."""
        return threading.Thread(target=work, name=name, daemon=True)

    def make_event(self) -> threading.Event:
        return threading.Event()

    def make_condition(self) -> threading.Condition:
        return threading.Condition()

    def sleep(self, seconds: float) -> None:
        """Pauses the calling thread."""
        time.sleep(seconds)

    def now(self) -> datetime:
        """Returns the time of the wall clock, in UTC."""
        return datetime.now(UTC)


SYSTEM = OperatingSystem()
