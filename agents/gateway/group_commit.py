"""Waits until stored pictures are on the disk. One flush of the spool serves all pictures that wait for it (group commit)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from agents.gateway.spool import Spool
from streams import metrics
from streams.operating_system import SYSTEM, OperatingSystem
from streams.supervision import SupervisedThread

# A function that is called after a flush. Its argument is None if the picture is on the disk, or else the disk's error.
OnFlushed = Callable[[OSError | None], None]


class GroupCommit:
    """Flushes the spool of one line in a thread of its own. Thread-safe.

    When `max_bytes` of pictures wait for a flush, `add` blocks. A slow disk then slows the camera down, but does not fill the memory.
    Before `start` and after `stop`, `add` flushes at once.
    """

    def __init__(self, spool: Spool, max_bytes: int, system: OperatingSystem = SYSTEM) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        self._changed = system.make_condition()
        self._waiting: list[tuple[int, OnFlushed]] = []
        self._waiting_bytes = 0
        self._is_running = False
        self._thread = SupervisedThread(f"flush-{spool.line}", self._run, system=system)

    def start(self) -> None:
        self._is_running = True
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. The thread first flushes the pictures that still wait."""
        with self._changed:
            self._is_running = False
            self._changed.notify_all()
        self._thread.join()

    def add(self, size: int, on_flushed: OnFlushed) -> None:
        """Calls `on_flushed` when all pictures that the spool has accepted are on the disk. `size` is the new picture's size in bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes < self._max_bytes or not self._is_running)
            if self._is_running:
                self._waiting.append((size, on_flushed))
                self._waiting_bytes += size
                self._changed.notify_all()
                return
        self._flush([(size, on_flushed)])

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or not self._is_running)
                group, self._waiting = self._waiting, []
            if not group:
                return
            try:
                self._flush(group)
            finally:
                # The bytes are subtracted even after an error in a callback. Otherwise they would block `add` for ever.
                with self._changed:
                    self._waiting_bytes -= sum(size for size, _ in group)
                    self._changed.notify_all()

    def _flush(self, group: list[tuple[int, OnFlushed]]) -> None:
        began_s = time.monotonic()
        failure: OSError | None = None
        try:
            self._spool.flush()
        except OSError as error:
            failure = error
        metrics.spool_flush_seconds.labels(self._spool.line).observe(time.monotonic() - began_s)
        # ExitStack calls every function, even if one of them raises an error. It calls the last function first, so `group` is reversed.
        with ExitStack() as stack:
            for _, on_flushed in reversed(group):
                stack.callback(on_flushed, failure)
