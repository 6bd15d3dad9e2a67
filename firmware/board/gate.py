"""The state machine of a gate. It decides which pulse the gate's servo gets.

    rest --diverted part at the gate--> going out --servo_ms--> out --dwell over--> returning --servo_ms--> rest

While a fault holds the gate, the gate does not move for parts.
"""

from __future__ import annotations

from firmware.lane_settings import LaneSettings

# The command SERVO sets the pulse width of the servo for this time.
SERVO_HOLD_US = 5_000_000


class Gate:
    """One gate. Places on the belt are in thousandths of a step, times in microseconds of the board's clock."""

    def __init__(self, settings: LaneSettings) -> None:
        self.settings = settings
        self.moves = 0
        self._pulse_us = settings.number("rest_us")
        # The servo pulse that the command SERVO has asked for, and the time at which this pulse ends. Both are in microseconds.
        self._held_pulse: tuple[int, int] | None = None
        self._arrives_us = 0
        self._held_action: str | None = None
        self._out_until_place: int | None = None
        self._test_until_us: int | None = None

    def position(self, now_us: int) -> str:
        """Returns the position of the gate as a word of the protocol: rest, out or moving."""
        if now_us < self._arrives_us:
            return "moving"
        return "out" if self.is_out else "rest"

    @property
    def pulse_us(self) -> int:
        """The servo pulse now, in microseconds."""
        return self._held_pulse[0] if self._held_pulse else self._pulse_us

    @property
    def is_pulse_held(self) -> bool:
        """True while the command SERVO sets the pulse of the servo."""
        return self._held_pulse is not None

    @property
    def is_out(self) -> bool:
        """True if the servo gets the pulse for the position `out`. The gate can still be on its way there."""
        return self._pulse_us == self.settings.number("out_us")

    def configure(self, settings: LaneSettings) -> None:
        """Uses new settings from now on. A gate at rest gets the new `rest_us` at once, and a gate that is out gets the new `out_us`."""
        was_out = self.is_out
        self.settings = settings
        self._pulse_us = settings.number("out_us" if was_out else "rest_us")

    def divert(self, until_place: int, now_us: int) -> bool:
        """Moves the gate out for a part. The gate returns when the belt has reached the place `until_place`.

        Returns True if this is a new movement, and False if the gate was out already.
        """
        self._out_until_place = until_place if self._out_until_place is None else max(until_place, self._out_until_place)
        return self._move(True, now_us)

    def hold(self, action: str | None, now_us: int) -> None:
        """Holds the gate in one position while a fault lasts. If `action` is None, the gate is released and returns to rest.

        The action `divert` holds the gate out, `pass` holds it at rest, and `stop` leaves it where it is.
        """
        self._held_action = action
        self._out_until_place = None
        self._test_until_us = None
        self._held_pulse = None
        if action == "divert":
            self._move(True, now_us)
        elif action == "pass":
            self._move(False, now_us)

    def test(self, now_us: int) -> None:
        """Moves the gate out for one second."""
        self._test_until_us = now_us + 1_000_000
        self._move(True, now_us)

    def hold_pulse(self, pulse_us: int, now_us: int) -> None:
        """Changes the pulse width of the servo to `pulse_us` for SERVO_HOLD_US. The command SERVO uses this method.

        If `pulse_us` is 0, the servo gets its former pulse width again.
        """
        self._held_pulse = (pulse_us, now_us + SERVO_HOLD_US) if pulse_us else None

    def tick(self, place: int, now_us: int) -> None:
        """Moves the gate back to rest after a diverted part or a test. Must be called every few milliseconds."""
        if self._held_pulse is not None and now_us >= self._held_pulse[1]:
            self._held_pulse = None
        if self._held_action is not None:
            return
        if self._test_until_us is not None:
            if now_us < self._test_until_us:
                return
            self._test_until_us = None
        if self._out_until_place is not None and place >= self._out_until_place:
            self._out_until_place = None
        if self._out_until_place is None and now_us >= self._arrives_us:
            self._move(False, now_us)

    def _move(self, out: bool, now_us: int) -> bool:
        if self.is_out == out:
            return False
        self._pulse_us = self.settings.number("out_us" if out else "rest_us")
        self._arrives_us = now_us + self.settings.number("servo_ms") * 1000
        self.moves += out
        return out
