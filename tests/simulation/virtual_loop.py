"""An event loop with virtual time. A seed chooses the order of the tasks that are ready, and the duration of work in threads."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from tests.simulation.virtual_clock import CLOCK

Result = TypeVar("Result")
# The work of a thread takes up to this long in virtual seconds.
_LONGEST_WORK_S = 0.15


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
        # The errors that no task has taken. Each of them is a fault.
        self.unhandled: list[str] = []
        self.set_exception_handler(lambda _, context: self.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}"))

    def time(self) -> float:
        return CLOCK.now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:  # type: ignore[override]
        """Runs `func` in this thread, at a virtual time that the seed chooses."""
        result: asyncio.Future[Result] = self.create_future()

        def work() -> None:
            if result.cancelled():
                return
            try:
                value = func(*args)
            except BaseException as error:  # noqa: BLE001  The error belongs to the caller, as with a real executor.
                result.set_exception(error)
            else:
                result.set_result(value)

        self.call_later(self.choice.uniform(0.001, _LONGEST_WORK_S), work)
        return result
