"""The camera pulses of one lane of a simulated board: a queue of pulses that wait for their moment, and the pulse that is being sent."""

from __future__ import annotations

from collections import deque

# Largest number of pulses that wait.
MAX_PULSES = 64
# Shortest pulse, and shortest time between two pulses.
LEAST_PULSE_US = PAUSE_US = 1000


class CameraTrigger:
    """Sends camera pulses. `began_us` has the times at which pulses began, and `lost` the number of pulses without room in the queue.

    Moments are places of the belt or times in microseconds, as the settings of the lane say.
    """

    def __init__(self) -> None:
        self.began_us: list[int] = []
        self.lost = 0
        self._moments: deque[int] = deque()
        self._end_us = self._least_end_us = 0

    def add(self, moment: int) -> None:
        """Adds a pulse to the queue. Without room for it, the pulse is counted as lost."""
        if len(self._moments) == MAX_PULSES:
            self.lost += 1
        else:
            self._moments.append(moment)

    def clear(self) -> None:
        """Deletes the queue. Its pulses count as lost."""
        self.lost += len(self._moments)
        self._moments.clear()

    def tick(self, position: int, now_us: int, pulse_us: int) -> None:
        """Begins the pulses whose moment has come. A pulse ends early if the next one is due."""
        if self._moments and position >= self._moments[0] and now_us >= min(self._end_us, self._least_end_us) + PAUSE_US:
            self._moments.popleft()
            self.began_us.append(now_us)
            self._end_us, self._least_end_us = now_us + pulse_us, now_us + LEAST_PULSE_US
