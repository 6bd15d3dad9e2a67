"""Replaces the monotonic clocks of this process by a virtual clock. Import this module before Faust and the roles.

Faust copies the clock functions of the module `time` when it is imported. Later replacements would not reach it.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class VirtualClock:
    """The seconds of the virtual time. Only the event loop moves the clock."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = VirtualClock()
# The processor time of a campaign is still measured in real seconds.
real_perf_counter: Callable[[], float] = time.perf_counter
time.monotonic = CLOCK
time.perf_counter = CLOCK
