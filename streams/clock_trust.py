"""Decides whether the clock of this machine is probably right.

If the clock were far ahead, new pictures and new records would seem to be too old, and would be deleted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from streams.clock_steps import ClockSteps

# The clock is not trusted for this many seconds after the start of the process, or after somebody has set it by an hour or more. During
# this time, NTP can correct the clock, and a person can notice a wrong clock.
SETTLING_S = 2 * 3600.0
# If somebody sets the clock forward or back by at least this many seconds, Castline stops trusting the clock for two hours.
_LEAST_STEP_S = 3600.0
# If the clock is more than this many seconds ahead of the time at which it was last trusted, it is probably wrong. The limit is 31 days,
# because the machines of a plant can be switched off during its holidays.
LONGEST_PAUSE_S = 31 * 86400.0


class ClockTrust:
    """Decides whether the clock can be trusted. Until it is trusted, nothing may be deleted because of its age. Not thread-safe.

    - `wall_clock`: the clock to check. A person or a program can set this clock.
    - `steady_clock`: a clock that nobody sets.
    - `remedy`: a sentence for a person, shown if the clock seems to be far ahead. It says what to do if the clock is right.
    """

    def __init__(
        self, remedy: str, wall_clock: Callable[[], float] = time.time, steady_clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remedy = remedy
        self._wall_clock = wall_clock
        self._steady_clock = steady_clock
        self._steps = ClockSteps(wall_clock, steady_clock)
        self._step_s = 0.0
        # True if the clock is not trusted only because the process has just started. In this case, no alarm is needed.
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
    """Returns whether `now_s` is more than 31 days after `last_time_s`, the time at which the clock was last trusted."""
    return last_time_s is not None and now_s - last_time_s > LONGEST_PAUSE_S


def _day(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d}"
