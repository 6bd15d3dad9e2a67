"""Ends the process by force if it cannot stop in time, because a thread, the event loop or the log waits for a disk that hangs."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType

from streams.supervision import SupervisedThread

# The log can wait for a disk that hangs, too. So the process ends at most this many seconds after it began to write its last messages.
_LAST_MESSAGES_S = 1.0


class ForcedEnd:
    """Ends the process with exit status 1 if it still runs `within_s` seconds after SIGTERM or SIGINT.

    Nothing else could end such a process from inside, because a thread that waits for a disk also keeps its locks. So this class uses no
    lock of another thread. `log_reason` is called first, and may wait for the log.
    """

    def __init__(self, within_s: float, log_reason: Callable[[], None]) -> None:
        self._within_s = within_s
        self._log_reason = log_reason
        # A signal handler may put into a SimpleQueue at any time. An Event could wait for its own lock.
        self._signals: SimpleQueue[int] = SimpleQueue()

    def watch_signals(self, on_signal: Callable[[], object]) -> None:
        """Calls `on_signal` at each SIGTERM or SIGINT, even if the main thread waits for the log. Call this method in the main thread."""

        def handle(signum: int, frame: FrameType | None) -> None:
            self._signals.put(signum)
            on_signal()

        SupervisedThread("end", self._run).start()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, handle)

    def _run(self) -> None:
        self._signals.get()
        # The timer is started before the messages are written. So the process ends even if the log waits for ever.
        timer = threading.Timer(self._within_s + _LAST_MESSAGES_S, os._exit, (1,))
        timer.daemon = True
        timer.start()
        time.sleep(self._within_s)
        self._log_reason()
        logging.shutdown()
        os._exit(1)
