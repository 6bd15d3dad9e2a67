"""Decides whether the clock of this machine is probably right.

With a clock that is far ahead, new pictures and new records would be deleted for being too old.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from streams.clock_steps import ClockSteps

# After the start of a machine, its clock can be wrong until NTP has corrected it. A person needs some time to notice a wrong clock, too.
SETTLING_S = 2 * 3600.0
# A clock that was set by less than this is no reason to wait.
_LEAST_STEP_S = 3600.0
# A plant can stand still during its holidays. If the clock says that more time has passed, the clock is probably wrong.
LONGEST_PAUSE_S = 31 * 86400.0


class ClockTrust:
    """Says why nothing may be deleted for being too old. Not thread-safe.

    `wall_clock` can be set by a person or a program. `steady_clock` is a clock that nobody sets. `remedy` is a sentence that says what a
    person must do if the clock is right although it is far ahead of the time at which it was last right.
    """

    def __init__(
        self, remedy: str, wall_clock: Callable[[], float] = time.time, steady_clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remedy = remedy
        self._wall_clock = wall_clock
        self._steady_clock = steady_clock
        self._steps = ClockSteps(wall_clock, steady_clock)
        self._step_s = 0.0
        # True if the last doubt was only the short time since the start of the process, which is no reason for an alarm.
        self.is_starting = False
        self._settled_at_s = steady_clock() + SETTLING_S

    def find_doubt(self, last_time_s: float | None) -> str:
        """Returns a sentence that says why the clock is not trusted yet, or "" if it is trusted.

        `last_time_s` is the time at which the clock was last trusted, in seconds since 1970. It is None if this never happened.
        """
        step_s = self._steps.take_step_s()
        if abs(step_s) >= _LEAST_STEP_S:
            self._step_s, self._settled_at_s = step_s, self._steady_clock() + SETTLING_S
        now_s = self._wall_clock()
        self.is_starting = False
        if is_far_ahead(now_s, last_time_s):
            assert last_time_s is not None
            days = (now_s - last_time_s) / 86400
            return (
                f"The clock of this machine says {_day(now_s)}. This is {days:.0f} days after {_day(last_time_s)}, when it was last right. "
                f"Correct the clock. {self._remedy}"
            )
        wait_s = self._settled_at_s - self._steady_clock()
        if wait_s <= 0:
            return ""
        self.is_starting = not self._step_s
        what = f"The clock was set by {self._step_s / 3600:+.1f} h" if self._step_s else "The process has just started"
        return f"{what}, so the clock is trusted only in {math.ceil(wait_s / 60)} minutes."


def is_far_ahead(now_s: float, last_time_s: float | None) -> bool:
    """Returns whether a clock that says `now_s` is more than 31 days ahead of the time at which it was last right."""
    return last_time_s is not None and now_s - last_time_s > LONGEST_PAUSE_S


def _day(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d}"
