"""Says whether other programs leave processor time for heat maps, so that heat maps do not slow down an inspector on the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

# The use of the processors is measured over at least this many seconds, because Linux counts processor time in steps of 10 ms.
SAMPLE_S = 0.25
# A measurement over more than this many seconds is not used, because it does not show how busy the processors are now. A new measurement
# then begins.
MAX_SAMPLE_S = 2.0
# A heat map keeps one processor busy. The localiser waits if other programs leave less than half of one processor free.
LEAST_FREE_PROCESSORS = 0.5


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Processor times in seconds, each summed over all processors.

    - `at_s`: the monotonic time of the reading.
    - `total_s`, `idle_s`: the time since the machine started, and the part of this time in which the processors had nothing to do.
    - `own_s`: the time that this process has used.
    """

    at_s: float
    total_s: float
    idle_s: float
    own_s: float


def read_processor_times() -> ProcessorTimes:
    """Returns the processor times of the machine and of this process."""
    # The times of virtual machines (`guest…`) are left out, because Linux also counts them in `user` and `nice`.
    times = {name: value for name, value in psutil.cpu_times()._asdict().items() if not name.startswith("guest")}
    idle_s = times["idle"] + times.get("iowait", 0.0)
    return ProcessorTimes(time.monotonic(), sum(times.values()), idle_s, time.process_time())


def count_free_processors(before: ProcessorTimes, after: ProcessorTimes) -> float:
    """Returns how many processors other programs left free between two readings.

    The time that the localiser itself used counts as free time.
    """
    free_s = after.idle_s - before.idle_s + after.own_s - before.own_s
    return free_s / max(after.at_s - before.at_s, 1e-6)


class SpareProcessors:
    """Measures again and again whether other programs leave enough processor time for heat maps."""

    def __init__(self, read: Callable[[], ProcessorTimes] = read_processor_times) -> None:
        self._read = read
        self._before = read()
        self._are_free = True

    def are_free(self) -> bool:
        """Returns whether other programs left at least half a processor free since the last measurement.

        Returns False if the last measurement is more than MAX_SAMPLE_S old, because nobody knows then how busy the processors are. A call
        less than SAMPLE_S after the last measurement returns the last result.
        """
        now = self._read()
        elapsed_s = now.at_s - self._before.at_s
        if elapsed_s >= SAMPLE_S:
            self._are_free = elapsed_s <= MAX_SAMPLE_S and count_free_processors(self._before, now) >= LEAST_FREE_PROCESSORS
            self._before = now
        return self._are_free
