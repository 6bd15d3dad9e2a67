"""Notices when a person or a program sets the clock of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

# A step is a sudden change of the clock by at least this many seconds. Smaller changes are ignored, because NTP corrects the clock all
# the time, by at most 0.5 ms a second.
LEAST_STEP_S = 0.02
# The wall clock and the steady clock are read one after the other. If the two readings take longer than this many seconds, the process was
# interrupted between them. Both clocks are then read again.
_LONGEST_READING_S = 0.002
_READINGS = 5


class ClockSteps:
    """Detects jumps of the wall clock, for example when a person sets it. Not thread-safe."""

    def __init__(self, wall_clock: Callable[[], float] = time.time, steady_clock: Callable[[], float] = time.monotonic) -> None:
        self._wall_clock = wall_clock
        self._steady_clock = steady_clock
        self._ahead_s = self._read()

    def take_step_s(self) -> float:
        """Returns by how many seconds the wall clock has jumped forward since the last call, or 0 if it has not jumped.

        A jump back gives a negative number.
        """
        before_s, self._ahead_s = self._ahead_s, self._read() or self._ahead_s
        if before_s is None or self._ahead_s is None:
            return 0.0
        step_s = self._ahead_s - before_s
        return step_s if abs(step_s) >= LEAST_STEP_S else 0.0

    def _read(self) -> float | None:
        for _ in range(_READINGS):
            begin_s, wall_s, end_s = self._steady_clock(), self._wall_clock(), self._steady_clock()
            if end_s - begin_s <= _LONGEST_READING_S:
                return wall_s - end_s
        return None
