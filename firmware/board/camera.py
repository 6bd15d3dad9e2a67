"""Sends the camera pulses of one lane of a simulated board. Pulses that are not due yet wait in a queue."""

from __future__ import annotations

from collections import deque

# Largest number of camera pulses that can wait in the queue.
MAX_PULSES = 64
# Shortest length of a camera pulse, and shortest time between two pulses.
LEAST_PULSE_US = PAUSE_US = 1000


class CameraTrigger:
    """Sends the camera pulses of a lane.

    - `began_us`: the start times of the sent pulses.
    - `lost`: the number of pulses that were never sent.
    """

    def __init__(self) -> None:
        self.began_us: list[int] = []
        self.lost = 0
        self._moments: deque[int] = deque()
        self._end_us = self._least_end_us = 0

    def add(self, moment: int) -> None:
        """Adds a pulse to the queue. If the queue is full, the pulse is counted as lost.

        `moment` says when the pulse is due: at a time in microseconds or, with the setting `trigger_mm`, at a position of the belt.
        """
        if len(self._moments) == MAX_PULSES:
            self.lost += 1
        else:
            self._moments.append(moment)

    def clear(self) -> None:
        """Deletes all waiting pulses, and counts them as lost."""
        self.lost += len(self._moments)
        self._moments.clear()

    def tick(self, position: int, now_us: int, pulse_us: int) -> None:
        """Begins the next pulse if it is due. If necessary, the previous pulse ends early, but it lasts for at least LEAST_PULSE_US."""
        if self._moments and position >= self._moments[0] and now_us >= min(self._end_us, self._least_end_us) + PAUSE_US:
            self._moments.popleft()
            self.began_us.append(now_us)
            self._end_us, self._least_end_us = now_us + pulse_us, now_us + LEAST_PULSE_US
