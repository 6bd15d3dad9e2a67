"""An event loop with virtual time. A seed chooses the order of the tasks that are ready, and the duration of work in threads."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

from greenlet import GreenletExit

from tests.simulation.virtual_clock import CLOCK
from tests.simulation.virtual_processes import VirtualProcess, current_process, start_greenlet

Result = TypeVar("Result")
# The work of a thread takes up to this long in virtual seconds, and its result is known up to _LONGEST_NEWS_S later. If a process is
# killed in between, the work is done, but the next process does not know it.
_LONGEST_WORK_S = 0.15
_LONGEST_NEWS_S = 0.05
_SHORTEST_WAIT_S = 1e-6


class DeadlockError(Exception):
    """No task of the simulation can continue, and no timer is set."""


class _VirtualSelector(selectors.SelectSelector):
    """Advances the virtual clock instead of waiting."""

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("Every task waits for another task, and no timer is set.")
        CLOCK.now_s += max(0.0, timeout)
        return []


class _SeededQueue(deque[Any]):
    """The queue of ready callbacks. Tasks that are ready at the same time run in an order that `choice` chooses.

    Other callbacks keep their order, because asyncio guarantees this order.
    """

    def __init__(self, choice: random.Random) -> None:
        super().__init__()
        self._choice = choice

    def append(self, handle: Any) -> None:
        super().append(handle)
        if len(self) > 1 and _is_task_step(handle) and _is_task_step(self[-2]) and self._choice.random() < 0.3:
            self[-1], self[-2] = self[-2], self[-1]


def _is_task_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while nothing else can run. The same `seed` gives the same run."""

    def __init__(self, seed: int) -> None:
        super().__init__(_VirtualSelector())
        CLOCK.now_s = 1000.0
        self.choice = random.Random(seed)
        self._ready = _SeededQueue(random.Random(seed + 1))
        self._clock_resolution = 1e-9
        # What happens outside of the processes happens in this context. It goes on when a process is killed.
        self.world = copy_context()
        self.set_task_factory(_make_task)
        # The errors that no task has taken. Each of them is a fault.
        self.unhandled: list[str] = []
        self.set_exception_handler(lambda _, context: self.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}"))

    def time(self) -> float:
        return CLOCK.now_s

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = super().call_soon(callback, *args, context=context)
        return _cancel_if_dead(handle, context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # Each timer takes some time, as in reality. Otherwise code that waits for the rest of an interval could wait for ever.
        handle = super().call_at(max(when, CLOCK.now_s + _SHORTEST_WAIT_S), callback, *args, context=context)
        return _cancel_if_dead(handle, context)

    def forget(self, process: VirtualProcess) -> None:
        """Cancels all callbacks and timers of a process that was killed."""
        for handle in (*self._ready, *self._scheduled):  # type: ignore[attr-defined]
            if not handle.cancelled() and current_process(handle._context) is process:
                handle.cancel()

    def end(self) -> None:
        """Closes the loop. Tasks that still wait are dropped."""
        asyncio.set_event_loop(None)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.close()

    def run_in_executor(self, executor: Any, func: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:  # type: ignore[override]
        """Runs `func` in a virtual thread, at a virtual time that the seed chooses."""
        result: asyncio.Future[Result] = self.create_future()

        def work() -> None:
            if result.cancelled():
                return
            try:
                finish, value = result.set_result, func(*args)
            except GreenletExit:
                raise
            except BaseException as error:  # noqa: BLE001  The error belongs to the caller, as with a real executor.
                finish, value = result.set_exception, error  # type: ignore[assignment]
            self.call_later(self.choice.uniform(0.0, _LONGEST_NEWS_S), _finish, result, finish, value)

        self.call_later(self.choice.uniform(0.001, _LONGEST_WORK_S), start_greenlet, work)
        return result


Handle = TypeVar("Handle", bound=asyncio.Handle)


def _cancel_if_dead(handle: Handle, context: Context | None) -> Handle:
    process = current_process(context)
    if process is not None and process.is_dead:
        handle.cancel()
    return handle


def _finish(result: asyncio.Future[Any], finish: Callable[[Any], object], value: Any) -> None:
    if not result.done():
        finish(value)


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
    process = current_process(context)
    if process is not None:
        process.tasks.add(task)
    return task
