"""Checks whether the gate of a simulated board really moves. The end switch at the gate and the eye in the reject chute show this.

Places are in thousandths of an encoder step, times in microseconds.
"""

from __future__ import annotations

# The board stores at most this many diverted parts that are on their way from a gate to the eye in its chute.
MAX_CHUTE_PARTS = 8
# After an order to move, a gate with an end switch has 2 x servo_ms + END_MARGIN_US to reach its other end.
END_MARGIN_US = 100_000
# An intact gate leaves its end within servo_ms / 2 + contact_ms + LEAVE_MARGIN_US after an order to move. LEAVE_MARGIN_US is the longest
# time from the order to the servo's next pulse.
LEAVE_MARGIN_US = 20_000
# The end switch can show two problems: the gate has not left its old end, or the gate has not arrived at its new end. The board reports
# both problems as fault 54. The detail of the fault is one of these numbers.
NOT_LEFT, NOT_ARRIVED = 1, 2


class Chute:
    """Stores the diverted parts that have not reached the eye in the chute yet.

    For each part, the class stores the number of its GATE event, and the belt position at which the part must block the eye.
    """

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}

    @property
    def is_empty(self) -> bool:
        """True if no diverted part is on its way to the eye."""
        return not self._expected

    def add(self, event: int, place: int) -> bool:
        """Adds a part that the eye should see when the belt reaches the position `place`. Returns False if there is no room."""
        if len(self._expected) == MAX_CHUTE_PARTS:
            return False
        self._expected[event] = place
        return True

    def take_nearest(self, place: int, window: int) -> int | None:
        """Removes the part whose expected position is nearest to `place`. The two positions must differ by at most `window`.

        Returns the event number of the part, or None if no part is near enough.
        """
        near = [(abs(place - expected), event) for event, expected in self._expected.items() if abs(place - expected) <= window]
        if not near:
            return None
        event = min(near)[1]
        del self._expected[event]
        return event

    def take_overdue(self, place: int, window: int) -> list[int]:
        """Removes the overdue parts, and returns their event numbers.

        A part is overdue if the belt has moved more than `window` past the part's expected position.
        """
        overdue = [event for event, expected in self._expected.items() if place > expected + window]
        for event in overdue:
            del self._expected[event]
        return overdue

    def take_all(self) -> list[int]:
        """Removes all parts, and returns their event numbers."""
        events = list(self._expected)
        self._expected.clear()
        return events


class EndSwitch:
    """Checks with a gate's end switch whether the gate really moves.

    The end switch is on while the gate is at one of its two ends: at rest or fully out.
    """

    def __init__(self) -> None:
        self._was_out = self._must_leave = False
        self._since_us = 0

    def restart(self, is_out: bool, now_us: int) -> None:
        """Restarts the time limit within which the gate must reach an end. The check makes no assumption about where the gate is now."""
        self._was_out, self._must_leave, self._since_us = is_out, False, now_us

    def check(self, at_end: bool, is_out: bool, now_us: int, limit_us: int, leave_us: int) -> int:
        """Returns NOT_LEFT if the gate has not left its end in time, NOT_ARRIVED if it has not arrived at an end in time, otherwise 0.

        - `is_out`: the last order. True means "move out", and False means "move back to rest".
        - `limit_us`: the time in which the gate must reach its end. After a problem, this time begins again.
        - `leave_us`: if the opposite order comes within this time after an order, the gate need not leave its end.
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
