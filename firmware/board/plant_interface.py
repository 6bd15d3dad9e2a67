"""The signals of a lane for the controller of the plant. docs/plant-interface.md has their timing diagram."""

from __future__ import annotations

from collections import deque

# At most this many results can wait. The signals show the plant's controller one result after the other.
WAITING_RESULTS = 8
# The signal `reject` changes this long before `result valid` begins. It keeps its level for the same time after `result valid` ends.
RESULT_MARGIN_US = 5000
# The heartbeat and the buzzer change their level at this interval, so a whole period takes a second.
HALF_PERIOD_US = 500_000


class PlantInterface:
    """The signals `result valid`, `reject`, heartbeat and buzzer. Each result goes through these phases:

    idle --result--> before --5 ms--> valid --result_ms--> after --5 ms--> idle
    """

    def __init__(self) -> None:
        self.is_silenced = False
        self._waiting: deque[bool] = deque()
        self._phase = "idle"
        self._since_us = 0
        self._is_reject = False
        self._now_us = 0

    def add_result(self, is_reject: bool) -> bool:
        """Puts the result of the part at the gate into the queue of results. Returns False if the queue is full."""
        if len(self._waiting) == WAITING_RESULTS:
            return False
        self._waiting.append(is_reject)
        return True

    def tick(self, now_us: int, result_us: int) -> None:
        """Moves the time forward to `now_us`. `result_us` is the duration of the signal `result valid`."""
        self._now_us = now_us
        length_us = result_us if self._phase == "valid" else RESULT_MARGIN_US
        if self._phase != "idle" and now_us - self._since_us >= length_us:
            self._phase = {"before": "valid", "valid": "after", "after": "idle"}[self._phase]
            self._since_us = now_us
        if self._phase == "idle" and self._waiting:
            self._phase, self._since_us, self._is_reject = "before", now_us, self._waiting.popleft()

    def signals(self, has_host: bool, has_fault: bool) -> dict[str, bool]:
        """Returns the levels of the signals. `has_fault` is True if a fault holds the gate or stops the line."""
        beat = self._now_us // HALF_PERIOD_US % 2 == 1
        return {
            "valid": self._phase == "valid",
            "reject": self._phase != "idle" and self._is_reject,
            "heartbeat": has_host and beat,
            "fault": has_fault,
            "buzzer": has_fault and beat and not self.is_silenced,
        }
