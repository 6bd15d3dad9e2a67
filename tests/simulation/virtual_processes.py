"""Processes and threads in virtual time. One of them runs at a time, and a killed process never runs again.

A process is known by a context variable, which asyncio passes on to all tasks, callbacks and threads that the process starts. A thread is a
greenlet: real blocking code, which gives control back to the event loop while it waits.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakSet

from greenlet import GreenletExit, getcurrent, greenlet

from streams.operating_system import OperatingSystem
from tests.simulation.virtual_clock import CLOCK

# The wall clock shows this time when the virtual clock shows 0, in seconds since 1970. It lies in the past, so that no real clock disturbs.
EPOCH_S = 1.76e9


class ProcessLoop(Protocol):
    """What processes and threads need of the event loop."""

    def call_soon(self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> Any: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> Any: ...

    def create_task(self, coro: Coroutine[Any, Any, Any], *, context: contextvars.Context | None = None) -> Any: ...

    def forget(self, process: VirtualProcess) -> None:
        """Cancels everything that the process has planned."""


class VirtualProcess:
    """A process that can be killed between any two steps of its tasks and threads."""

    def __init__(self, loop: ProcessLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.is_dead = False
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)
        self.tasks: WeakSet[Any] = WeakSet()
        self.threads: list[greenlet] = []
        # The tasks of a killed process are kept, because Python would otherwise run their `finally` blocks.
        self.remains: list[Any] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Starts `work` as a task of this process, and returns the task."""
        return self.loop.create_task(work, context=self.context.copy())

    def call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Calls `work` as this process would."""
        return self.context.copy().run(work, *args)

    def kill(self) -> None:
        """Ends the process as kill -9 does: none of its tasks and threads takes another step."""
        self.is_dead = True
        self.loop.forget(self)
        self.remains = list(self.tasks)
        for task in self.remains:
            task._log_destroy_pending = False
        for thread in self.threads:
            if not thread.dead and thread is not getcurrent():
                thread.throw(GreenletExit)


_PROCESS: contextvars.ContextVar[VirtualProcess | None] = contextvars.ContextVar("process", default=None)


def current_process(context: contextvars.Context | None = None) -> VirtualProcess | None:
    """Returns the process that runs now, or to which `context` belongs. None stands for the world outside of the processes."""
    return _PROCESS.get() if context is None else context.get(_PROCESS)


def start_greenlet(work: Callable[[], object]) -> None:
    """Calls `work` in a new thread of the present process, until the thread waits for the first time. Must be called in the event loop."""
    process = current_process()
    thread = greenlet(work)
    thread.gr_context = contextvars.copy_context()
    if process is not None:
        process.threads = [other for other in process.threads if not other.dead]
        process.threads.append(thread)
    thread.switch()


class Waiters:
    """The threads that wait for one event."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop
        self._wakers: list[Callable[[], None]] = []

    def wait(self, timeout_s: float | None) -> None:
        """Lets the present thread wait until `wake_all` is called, or until `timeout_s` seconds have passed."""
        thread, process = getcurrent(), current_process()
        assert thread.parent is not None, "The event loop itself must not wait for a thread."
        if process is not None and process.is_dead:
            raise GreenletExit
        context = contextvars.copy_context()
        is_woken = False

        def wake() -> None:
            nonlocal is_woken
            if not is_woken:
                is_woken = True
                self._loop.call_soon(_resume, thread, context=context)

        timer = None if timeout_s is None else self._loop.call_later(max(0.0, timeout_s), wake)
        self._wakers.append(wake)
        thread.parent.switch()
        if timer is not None:
            timer.cancel()
        if wake in self._wakers:
            self._wakers.remove(wake)

    def wake_all(self) -> None:
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()


def _resume(thread: greenlet) -> None:
    if not thread.dead:
        thread.switch()


class VirtualEvent(threading.Event):
    """An event for which threads wait in virtual time."""

    def __init__(self, loop: ProcessLoop) -> None:
        super().__init__()
        self._waiters = Waiters(loop)

    def set(self) -> None:
        super().set()
        self._waiters.wake_all()

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._waiters.wait(timeout)
        return self.is_set()


class VirtualCondition(threading.Condition):
    """A condition for which threads wait in virtual time. Its lock needs no release, because only one thread runs at a time."""

    def __init__(self, loop: ProcessLoop) -> None:
        super().__init__()
        self._virtual_waiters = Waiters(loop)

    def wait(self, timeout: float | None = None) -> bool:
        self._virtual_waiters.wait(timeout)
        return True

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        end_s = None if timeout is None else CLOCK.now_s + timeout
        while not (result := predicate()):
            left_s = None if end_s is None else end_s - CLOCK.now_s
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
        return result

    def notify(self, n: int = 1) -> None:
        self._virtual_waiters.wake_all()

    def notify_all(self) -> None:
        self._virtual_waiters.wake_all()


class VirtualThread(threading.Thread):
    """A thread of a process, which runs in virtual time."""

    def __init__(self, loop: ProcessLoop, name: str, work: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._loop = loop
        self._work = work
        self._is_running = False
        self._has_begun = False
        self._end = Waiters(loop)

    def start(self) -> None:
        assert not self._has_begun, "The thread was started before."
        self._has_begun = self._is_running = True
        self._loop.call_soon(start_greenlet, self._run)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._is_running = False
            self._end.wake_all()

    @property
    def ident(self) -> int | None:
        return id(self) if self._has_begun else None

    def is_alive(self) -> bool:
        return self._is_running

    def join(self, timeout: float | None = None) -> None:
        if self._is_running:
            self._end.wait(timeout)


class VirtualSystem(OperatingSystem):
    """The operating system of one seed."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop

    def make_thread(self, name: str, work: Callable[[], object]) -> threading.Thread:
        return VirtualThread(self._loop, name, work)

    def make_event(self) -> threading.Event:
        return VirtualEvent(self._loop)

    def make_condition(self) -> threading.Condition:
        return VirtualCondition(self._loop)

    def sleep(self, seconds: float) -> None:
        Waiters(self._loop).wait(seconds)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s(), UTC)

    def now_s(self) -> float:
        """Returns the time of the wall clock in seconds since 1970."""
        return EPOCH_S + CLOCK.now_s
