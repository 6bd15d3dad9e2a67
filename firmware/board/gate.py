"""The gate's machine: which pulse the servo gets, and how often it left its rest.

rest --moment of a diverted part--> going out --servo_ms--> out --dwell over--> returning --servo_ms--> rest
a fault holds it (`hold`), whatever parts want; nothing here looks at a clock but what is passed in
"""

from __future__ import annotations

from firmware.board.lane_settings import LaneSettings


class Gate:
    """Places are in thousandths of a step, times in board microseconds."""

    def __init__(self, settings: LaneSettings) -> None:
        self.settings = settings
        self.moves = 0
        self.pulse_us = settings.number("rest_us")
        self._arrives_us = 0
        self._held: str | None = None
        self._out_until: int | None = None
        self._test_until_us: int | None = None

    def position(self, now_us: int) -> str:
        if now_us < self._arrives_us:
            return "moving"
        return "out" if self.is_out else "rest"

    @property
    def is_out(self) -> bool:
        """The pulse is that of `out`; the servo may still be on its way."""
        return self.pulse_us == self.settings.number("out_us")

    @property
    def testing(self) -> bool:
        return self._test_until_us is not None

    def configure(self, settings: LaneSettings) -> None:
        """New pulses are sent at once; the position (rest or out) is kept."""
        was_out = self.is_out
        self.settings = settings
        self.pulse_us = settings.number("out_us" if was_out else "rest_us")

    def divert(self, until: int, now_us: int) -> bool:
        """Out for a part, until the belt has come to `until`; True when the gate left its rest for it."""
        self._out_until = until if self._out_until is None else max(until, self._out_until)
        return self._go(True, now_us)

    def hold(self, action: str | None, now_us: int) -> None:
        """A fault holds the gate: `divert` out, `pass` at rest, `stop` where it is; None lets go, back to rest."""
        self._held = action
        self._out_until = None
        self._test_until_us = None
        if action == "divert":
            self._go(True, now_us)
        elif action == "pass":
            self._go(False, now_us)

    def test(self, now_us: int) -> None:
        """One swing: out, one second, and back."""
        self._test_until_us = now_us + 1_000_000
        self._go(True, now_us)

    def tick(self, place: int, now_us: int) -> None:
        if self._held is not None:
            return
        if self._test_until_us is not None:
            if now_us < self._test_until_us:
                return
            self._test_until_us = None
        if self._out_until is not None and place >= self._out_until:
            self._out_until = None
        if self._out_until is None and now_us >= self._arrives_us:
            self._go(False, now_us)

    def _go(self, out: bool, now_us: int) -> bool:
        if self.is_out == out:
            return False
        self.pulse_us = self.settings.number("out_us" if out else "rest_us")
        self._arrives_us = now_us + self.settings.number("servo_ms") * 1000
        self.moves += out
        return out
