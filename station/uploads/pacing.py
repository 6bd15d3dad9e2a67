"""How much one account may send: so many pictures a minute, and so many requests at once for all together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Each holds a picture in memory.
MOST_AT_ONCE = 32
_FORGET_ABOVE = 1000


class Pace:
    """A bucket of `per_minute` for each account, filled evenly. Thread-safe; `clock` gives monotonic seconds."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, account: int, pictures: int = 1) -> float:
        """0 when `account` may send so many now, which then counts; else the seconds after which it may."""
        now = self._clock()
        with self._lock:
            left, at = self._left.get(account, (float(self._per_minute), now))
            left = min(self._per_minute, left + (now - at) * self._per_minute / 60)
            if left < pictures:
                self._left[account] = (left, now)
                return (min(pictures, self._per_minute) - left) * 60 / self._per_minute
            self._left[account] = (left - pictures, now)
            if len(self._left) > _FORGET_ABOVE:
                self._left = {key: kept for key, kept in self._left.items() if now - kept[1] < 60}
            return 0.0


class Doors:
    """Counts who is inside. Thread-safe."""

    def __init__(self, most: int = MOST_AT_ONCE) -> None:
        self._most = most
        self._inside = 0
        self._lock = threading.Lock()

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Whether there was room; what is counted leaves with the block."""
        with self._lock:
            room = self._inside < self._most
            self._inside += room
        try:
            yield room
        finally:
            with self._lock:
                self._inside -= room
