"""Keeps the threads and tasks of a process alive. Work that fails is logged, counted, shown at /healthz, and called again after a pause.

| what is kept alive | how it is started |
| --- | --- |
| a thread | `SupervisedThread` |
| a task of the event loop that does not process records of Kafka | `run_supervised` |
| a task that processes records of Kafka | `ConsumerGroup`. An error ends the process, and the next process gets the records again |

A thread that cannot begin ends its process: see `end_if_a_thread_cannot_begin`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from streams import metrics
from streams.backoff import Backoff
from streams.complaints import Complaints
from streams.operating_system import SYSTEM, OperatingSystem

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

log = logging.getLogger(__name__)

# The exit status after a fault that a new start can end.
_FAULT = 1
_STDERR = 2
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
# The pauses grow with each failure. After the work has run for this many seconds, the next pause is short again.
_STEADY_S = 60.0

_faults = Complaints()


def list_thread_faults() -> list[str]:
    """Returns a sentence for each thread or task of this process that failed within the last ten minutes."""
    return _faults.list_texts()


def end_if_a_thread_cannot_begin() -> None:
    """Ends this process with status 1 when a new thread fails before it calls its own function, for example because there is no memory.

    The method `start` waits without a limit until the new thread runs. If the new thread fails, Python writes the error to the output, and
    `start` goes on waiting. So without this function, the process would hang.
    """

    def handle(unraisable: UnraisableHookArgs) -> None:
        # Without memory, Python 3.11 and 3.12 pass no message. `object` is then still the method of Thread that a new thread calls first.
        if "thread started by" in (unraisable.err_msg or "") or getattr(unraisable.object, "__name__", "") == "_bootstrap":
            try:
                # The log is not used, because other threads may hold its lock.
                os.write(_STDERR, b"A thread failed outside its work, so this process ends.\n")
            finally:
                os._exit(_FAULT)
        sys.__unraisablehook__(unraisable)

    sys.unraisablehook = handle


class _FailureLog:
    """Logs and counts the failures of one thread or task, and computes the pause after each failure."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._backoff = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)
        self._began_s = 0.0
        metrics.thread_failures.labels(name)

    def begin(self) -> None:
        self._began_s = time.monotonic()

    def add(self, error: Exception) -> float:
        """Logs and counts a failure of the work. Returns how many seconds to wait before the next call of the work."""
        if time.monotonic() - self._began_s >= _STEADY_S:
            self._backoff.succeeded()
        wait_s = self._backoff.failed()
        metrics.thread_failures.labels(self._name).inc()
        log.error('The thread "%s" has failed. It starts again in %.1f s.', self._name, wait_s, exc_info=error)
        failed_at = datetime.now().astimezone()
        _faults.add_event(
            self._name,
            f'the thread "{self._name}" failed at {failed_at:%H:%M:%S} and was started again: {error!r}; the log has the details',
        )
        return wait_s


class SupervisedThread:
    """A daemon thread that calls `work`. If `work` raises an error, the thread calls it again after a pause of 0.5 to 30 s.

    - `name`: the name of the thread. The name is also a label of a metric, so it must not contain a process id or another number that
      changes.
    - `stopping`: the thread ends if this event is set during a pause. The thread also ends when `work` returns.
    - `pause`: a function that waits after a failure. Its argument is the length of the pause in seconds. It must return early if `stopping`
      is set. The default is `stopping.wait`.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        stopping: threading.Event | None = None,
        pause: Callable[[float], object] | None = None,
        system: OperatingSystem = SYSTEM,
    ) -> None:
        self._work = work
        self._stopping = stopping or system.make_event()
        self._pause = pause or self._stopping.wait
        self._failures = _FailureLog(name)
        self._thread = system.make_thread(name, self._run)

    def start(self) -> None:
        """Starts the thread. Raises RuntimeError if it was started before."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Waits for the end of the thread, at most `timeout_s` seconds. Returns at once if the thread was not started."""
        if self.is_started:
            self._thread.join(timeout_s)

    @property
    def is_started(self) -> bool:
        return self._thread.ident is not None

    def is_alive(self) -> bool:
        """Returns True until the thread ends. A thread that pauses after a failure is alive."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._failures.begin()
            try:
                self._work()
                return
            except Exception as error:  # noqa: BLE001  A thread must survive every error. The error is logged, counted and shown.
                wait_s = self._failures.add(error)
            self._pause(wait_s)
            if self._stopping.is_set():
                return


async def run_supervised(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Awaits `work()`. After an error, calls `work` again after a pause of 0.5 to 30 s. Returns when `work` returns."""
    failures = _FailureLog(name)
    while True:
        failures.begin()
        try:
            await work()
            return
        except Exception as error:  # noqa: BLE001  A task must survive every error. The error is logged, counted and shown.
            await asyncio.sleep(failures.add(error))
