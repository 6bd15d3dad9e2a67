"""What confirms the moves of a simulated board's gate: the end switch, and the eye in the reject chute.

Places are in thousandths of a step, times in microseconds.
"""

from __future__ import annotations

# The board stores at most this many diverted parts that are on their way from a gate to the eye in its chute.
MAX_CHUTE_PARTS = 8
# A gate with an end switch must reach its other end within 2 x servo_ms plus this time.
END_MARGIN_US = 100_000
# The gate must have left its end within servo_ms / 2 plus contact_ms plus this time, the longest wait for a servo pulse.
LEAVE_MARGIN_US = 20_000
# What is wrong with a gate: the detail of fault 54.
NOT_LEFT, NOT_ARRIVED = 1, 2


class Chute:
    """The diverted parts that have not reached the eye in the chute. For each part, it stores the event and the expected place."""

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no part is expected at the eye."""
        return not self._expected

    def add(self, event: int, place: int) -> bool:
        """Adds a part that must block the eye when the belt is at `place`. Returns False if there is no room."""
        if len(self._expected) == MAX_CHUTE_PARTS:
            return False
        self._expected[event] = place
        return True

    def take_nearest(self, place: int, window: int) -> int | None:
        """Removes the part that is expected nearest to `place`, at most `window` away.

        Returns the event of the part, or None if there is no such part.
        """
        near = [(abs(place - expected), event) for event, expected in self._expected.items() if abs(place - expected) <= window]
        if not near:
            return None
        event = min(near)[1]
        del self._expected[event]
        return event

    def take_overdue(self, place: int, window: int) -> list[int]:
        """Removes the overdue parts: the belt has moved more than `window` past their expected place. Returns their events."""
        overdue = [event for event, expected in self._expected.items() if place > expected + window]
        for event in overdue:
            del self._expected[event]
        return overdue

    def take_all(self) -> list[int]:
        """Removes all parts and returns their events."""
        events = list(self._expected)
        self._expected.clear()
        return events


class EndSwitch:
    """Checks whether a gate really moves. The switch is on while the gate stands at one of its two ends."""

    def __init__(self) -> None:
        self._was_out = self._must_leave = False
        self._since_us = 0

    def restart(self, is_out: bool, now_us: int) -> None:
        """Starts the check again. The gate may stand anywhere, and the time limit to reach an end begins now."""
        self._was_out, self._must_leave, self._since_us = is_out, False, now_us

    def check(self, at_end: bool, is_out: bool, now_us: int, limit_us: int, leave_us: int) -> int:
        """Returns NOT_LEFT or NOT_ARRIVED if the gate has not moved in time, otherwise 0. Each problem is returned once.

        `is_out` says where the servo was told to move the gate. A gate that is told to turn back within `leave_us`, before it has left its
        end, may stay there.
        """
        if is_out != self._was_out:
            if at_end and self._must_leave and now_us >= self._since_us + leave_us:
                self.restart(is_out, now_us)
                return NOT_LEFT
            self._was_out, self._since_us = is_out, now_us
            self._must_leave = at_end and not self._must_leave
        if not at_end:
            self._must_leave = False
        elif not self._must_leave:
            self._since_us = now_us
        if now_us < self._since_us + limit_us:
            return 0
        trouble = NOT_LEFT if self._must_leave else NOT_ARRIVED
        self.restart(is_out, now_us)
        return trouble
